/* Spends its time in the kernel: read_zeroes has it clear a buffer again and again. */
#include <fcntl.h>
#include <unistd.h>

static char buffer[1 << 20];

__attribute__((noinline)) long read_zeroes(int fd)
{
	long got = 0;

	for (;;)
		got += read(fd, buffer, sizeof(buffer));
	return got;
}

int main(void)
{
	return read_zeroes(open("/dev/zero", O_RDONLY)) == 42;
}
