// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Lives of cgroups: made, removed, renamed. Gives cgroups that live shorter than a scan their names, and tells a
 * kernel id that came back from the one that went.
 *
 * All three tracepoints fire under cgroup_mutex, so one ring with one producer serves the machine.
 * Blind spot: the kernel cuts paths at 1,023 bytes, we at 999; user space then asks the file system.
 */
#include <uapi/linux/ptrace.h>

#include "shared.h"
#include "task.h"

/* The events, and their positions; mapped by user space. */
BPF_F_TABLE("array", __u32, struct coprof_cgroup_event, cgroup_slots, COPROF_CGROUP_SLOTS, BPF_F_MMAPABLE);
BPF_F_TABLE("array", __u32, struct coprof_cgroup_ring, cgroup_ring, 1, BPF_F_MMAPABLE);

static __always_inline int keep_event(struct bpf_raw_tracepoint_args *ctx, __u32 action)
{
	struct cgroup *cgroup = (struct cgroup *)ctx->args[0];
	const char *path = (const char *)ctx->args[1];
	struct coprof_cgroup_ring *ring;
	struct cgroup_root *root = NULL;
	struct kernfs_node *node = NULL;
	struct coprof_cgroup_event *event;
	__u32 zero = 0;
	int hierarchy_id = -1;

	COPROF_READ(root, cgroup->root);
	COPROF_READ(hierarchy_id, root->hierarchy_id);
	if (hierarchy_id != COPROF_HIERARCHY_ID)
		return 0;
	ring = cgroup_ring.lookup(&zero);
	if (!ring)
		return 0; /* cannot happen: the map has the key 0 */
	if (ring->head - ring->tail >= COPROF_CGROUP_SLOTS) {
		ring->lost++;
		return 0;
	}
	__u32 slot = ring->head & (COPROF_CGROUP_SLOTS - 1);

	event = cgroup_slots.lookup(&slot);
	if (!event)
		return 0; /* cannot happen: the slot is within the map */
	event->ts_ns = bpf_ktime_get_ns();
	event->action = action;
	event->reserved = 0;
	COPROF_READ(node, cgroup->kn);
	COPROF_READ(event->kernel_id, node->id);
	__builtin_memset(event->path, 0, sizeof(event->path)); /* the slot holds an older, perhaps longer path */
	bpf_probe_read_kernel_str(event->path, sizeof(event->path), path);
	__sync_fetch_and_add(&ring->head, 1);
	return 0;
}

int on_cgroup_mkdir(struct bpf_raw_tracepoint_args *ctx)
{
	return keep_event(ctx, COPROF_CGROUP_MADE);
}

int on_cgroup_rmdir(struct bpf_raw_tracepoint_args *ctx)
{
	return keep_event(ctx, COPROF_CGROUP_REMOVED);
}

int on_cgroup_rename(struct bpf_raw_tracepoint_args *ctx)
{
	return keep_event(ctx, COPROF_CGROUP_RENAMED);
}
