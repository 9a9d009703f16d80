/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Facts about a task. Members differ between kernels; btf.py probes them and -D says which are there. */
#ifndef COPROF_TASK_H
#define COPROF_TASK_H

#include "offsets.h"

/* The layout that was compiled must be the kernel's own, as BTF says it. */
#define COPROF_ASSERT_OFFSET(type, member)                                                                           \
	_Static_assert(__builtin_offsetof(struct type, member) == COPROF_OFFSET_##type##_##member, #type "." #member)

COPROF_ASSERT_OFFSET(task_struct, cgroups);
COPROF_ASSERT_OFFSET(task_struct, group_leader);
COPROF_ASSERT_OFFSET(task_struct, start_boottime);
COPROF_ASSERT_OFFSET(task_struct, self_exec_id);
COPROF_ASSERT_OFFSET(css_set, subsys);
COPROF_ASSERT_OFFSET(css_set, dfl_cgrp);
COPROF_ASSERT_OFFSET(cgroup_subsys_state, cgroup);
COPROF_ASSERT_OFFSET(cgroup, kn);
COPROF_ASSERT_OFFSET(cgroup, root);
COPROF_ASSERT_OFFSET(cgroup_root, hierarchy_id);
COPROF_ASSERT_OFFSET(kernfs_node, id);

#ifndef __always_inline
#define __always_inline inline __attribute__((__always_inline__))
#endif
#ifndef NULL
#define NULL ((void *)0)
#endif

#define COPROF_READ(into, from) bpf_probe_read_kernel(&(into), sizeof(into), &(from))

/*
 * The cgroup that the scheduler accounts the task to. On v1 and hybrid hosts that is the cpu controller's group:
 * bpf_get_current_cgroup_id() knows only the v2 hierarchy and answers 1 for everybody there. Not by way of
 * task->sched_task_group: for tasks of the root group that may be an autogroup, which has no cgroup.
 */
static __always_inline __u64 task_cgroup_id(struct task_struct *task)
{
	struct kernfs_node *node = NULL;
	struct cgroup *cgroup = NULL;
	struct css_set *set = NULL;
	__u64 id = 0;

	COPROF_READ(set, task->cgroups);
#ifdef COPROF_CGROUP_V2
	COPROF_READ(cgroup, set->dfl_cgrp);
#else
	struct cgroup_subsys_state *state = NULL;

	COPROF_READ(state, set->subsys[cpu_cgrp_id]);
	COPROF_READ(cgroup, state->cgroup);
#endif
	COPROF_READ(node, cgroup->kn);
	COPROF_READ(id, node->id);
	return id;
}

/* Start of the process, ns since boot. */
static __always_inline __u64 task_process_start_ns(struct task_struct *task)
{
	struct task_struct *leader = NULL;
	__u64 start_ns = 0;

	COPROF_READ(leader, task->group_leader);
	COPROF_READ(start_ns, leader->start_boottime);
	return start_ns;
}

/* Grows with every exec; 64 bits since 5.7, of which the low ones (little endian) are enough. */
static __always_inline __u32 task_exec_id(struct task_struct *task)
{
	__u32 exec_id = 0;

	bpf_probe_read_kernel(&exec_id, sizeof(exec_id), &task->self_exec_id);
	return exec_id;
}

#endif
