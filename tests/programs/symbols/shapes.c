/* Functions of every visibility, an assembly function without a size, and an indirect function. */
__attribute__((noinline)) static int area_static(int width) { return width * width + 1; }
__attribute__((noinline, weak)) int area_weak(int width) { return width * 3; }
__attribute__((noinline)) int area_global(int width) { return area_static(width) + area_weak(width); }

__asm__(".text\n.globl unsized_asm\n.type unsized_asm, @function\nunsized_asm:\n\tnop\n\tnop\n\tret\n");
int unsized_asm(void);

static int chosen(void) { return 7; }
static int (*resolve_chosen(void))(void) { return chosen; }
int indirect(void) __attribute__((ifunc("resolve_chosen")));

int main(int argc, char **argv)
{
	(void)argv;
	return area_global(argc) + unsized_asm() + indirect();
}
