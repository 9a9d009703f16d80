"""Paths as real hosts have them, against the workload a person would name; and every way a rule file can be wrong."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import BadInput
from profiler.workloads import (
    DEFAULT_RULES,
    SERVICE_CLASSES,
    CpuShare,
    Identity,
    decode_systemd,
    load_rules,
    read_rules,
)

CID = "d4e8e05a546c86b6443f101966c618e47753ed01fa9929cae00d3b692f7a9f80"
OTHER_CID = "6d393320601b821561e43bd46f658284cb172cf297ecc3d3665be657870d32e2"
UID = "214f3ba8-4b69-4bdb-a7d5-5ecc73f04ae9"
UID_ = UID.replace("-", "_")
STATIC_UID = "a3e1b2c4d5f60718293a4b5c6d7e8f90"
DEFAULTS = load_rules()


def classify(path, **cpu_share):
    return DEFAULTS.classify(path, CpuShare(**cpu_share))


def pod(service_class, uid=UID, cid=CID):
    return Identity(f"pod/{uid}", service_class, container_id=cid, pod_uid=uid)


def unit(name, service_class="online"):
    return Identity(name, service_class, unit=name)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", Identity("(root)", "system")),
        # Kubernetes, cgroupfs driver (same below v1 controllers and v2)
        (f"/kubepods/besteffort/pod{UID}/{CID}", pod("offline")),
        (f"/kubepods/burstable/pod{UID}/{CID}", pod("online")),
        (f"/kubepods/pod{UID}/{CID}", pod("online")),
        (f"/kubepods/burstable/pod{UID}", pod("online", cid="")),
        (f"/kubepods/burstable/pod{STATIC_UID}/{CID}", pod("online", uid=STATIC_UID)),
        (f"/kubepods/burstable/pod{UID}/crio-{CID}", pod("online")),
        (f"/kubepods/burstable/pod{UID}/{CID}/nested/deep", pod("online")),
        # Kubernetes, systemd driver
        (
            f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/cri-containerd-{CID}.scope",
            pod("offline"),
        ),
        (
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/crio-{CID}.scope/container",
            pod("online"),
        ),
        (f"/kubepods.slice/kubepods-pod{UID_}.slice/docker-{CID}.scope", pod("online")),
        (f"/kubepods.slice/kubepods-pod{STATIC_UID}.slice/cri-containerd-{CID}.scope", pod("online", uid=STATIC_UID)),
        (f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice", pod("offline", cid="")),
        (
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/"
            f"kubelet-kubepods-besteffort-pod{UID_}.slice/cri-containerd-{CID}.scope",
            pod("offline"),
        ),
        (f"/system.slice/containerd.service/kubepods-besteffort-pod{UID_}.slice:cri-containerd:{CID}", pod("offline")),
        (f"/kubepods-burstable-pod{UID_}.slice:cri-containerd:{CID}", pod("online")),
        (f"/docker/{OTHER_CID}/kubelet/kubepods/burstable/pod{UID}/{CID}", pod("online")),  # a node inside a container
        (f"/kubepods/besteffort/pod{UID}/{CID}/docker/{OTHER_CID}", pod("offline")),  # an engine inside a pod
        # Koordinator
        ("/kubepods/besteffort/hadoop-yarn/container_01", Identity("hadoop-yarn/container_01", "offline")),
        ("/kubepods.slice/kubepods-besteffort.slice/hadoop-yarn", Identity("hadoop-yarn", "offline")),
        ("/host-best-effort/spark", Identity("spark", "offline")),
        ("/host-latency-sensitive/nginx/worker", Identity("nginx", "online")),
        # Engines
        (f"/docker/{CID}", Identity(f"docker/{CID[:12]}", "online", container_id=CID)),
        (f"/system.slice/docker-{CID}.scope", Identity(f"docker/{CID[:12]}", "online", container_id=CID)),
        (f"/docker/{CID}/docker/{OTHER_CID}", Identity(f"docker/{CID[:12]}", "online", container_id=CID)),
        (f"/docker/{CID}/system.slice/nginx.service", Identity(f"docker/{CID[:12]}", "online", container_id=CID)),
        (f"/machine.slice/libpod-{CID}.scope/container", Identity(f"podman/{CID[:12]}", "online", container_id=CID)),
        (f"/libpod_parent/libpod-{CID}", Identity(f"podman/{CID[:12]}", "online", container_id=CID)),
        (
            f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{CID}.scope",
            Identity(f"podman/{CID[:12]}", "online", container_id=CID),
        ),
        ("/default/redis-test", Identity("default/redis-test", "online", container_id="redis-test")),
        (f"/k8s.io/{CID}", Identity(f"k8s.io/{CID[:12]}", "online", container_id=CID)),
        (f"/system.slice/nerdctl-{CID}.scope", Identity(f"nerdctl/{CID[:12]}", "online", container_id=CID)),
        ("/lxc/web1", Identity("lxc/web1", "online", container_id="web1")),
        ("/lxc.payload.web1/system.slice/a.service", Identity("lxc/web1", "online", container_id="web1")),
        (f"/own-engine/{CID}", Identity(f"container/{CID[:12]}", "online", container_id=CID)),
        # systemd
        ("/init.scope", unit("init.scope", "system")),
        ("/system.slice/nginx.service", unit("nginx.service")),
        ("/system.slice/nginx.service/worker", unit("nginx.service")),
        ("/system.slice/lxc.service", unit("lxc.service")),
        ("/system.slice/ssh.service", unit("ssh.service", "system")),
        ("/system.slice/systemd-journald.service", unit("systemd-journald.service", "system")),
        ("/system.slice/system-getty.slice/getty@tty1.service", unit("getty@tty1.service", "system")),
        ("/system.slice/system-postgresql.slice/postgresql@15-main.service", unit("postgresql@15-main.service")),
        ("/web.slice/web-shop.slice/run-r1.scope", unit("run-r1.scope")),
        ("/system.slice/dbus.socket", unit("dbus.socket")),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-editor.scope",
            Identity("user-1000", "online", unit="app-editor.scope"),
        ),
        ("/user.slice/user-0.slice/session-3.scope", Identity("user-0", "online", unit="session-3.scope")),
        ("/user.slice/user-0.slice", Identity("user-0", "online")),
        (
            r"/machine.slice/machine-qemu\x2d1\x2ddb.scope/libvirt/emulator",
            Identity("machine/qemu-1-db", "online", unit=r"machine-qemu\x2d1\x2ddb.scope"),
        ),
        (
            r"/system.slice/dev-disk-by\x2did-x.swap",
            Identity("dev-disk-by-id-x.swap", "online", unit=r"dev-disk-by\x2did-x.swap"),
        ),
        # Anything else
        ("/system.slice", Identity("system.slice", "online")),
        ("/batch/job-7", Identity("batch/job-7", "online")),
        ("", Identity("(unknown)", "online")),
    ],
)
def test_default_rules(path, expected):
    assert classify(path) == expected


def test_the_cpu_share_decides_only_where_no_rule_names_a_class():
    for share in ({"is_idle": True}, {"is_least_weight": True}):
        assert classify("/batch/job-7", **share).service_class == "offline"
        assert classify("/system.slice/nginx.service", **share).service_class == "offline"
        assert classify(f"/kubepods/burstable/pod{UID}/{CID}", **share).service_class == "online"
        assert classify("/init.scope", **share).service_class == "system"
    assert DEFAULTS.needs_cpu_share("/batch/job-7")
    assert not DEFAULTS.needs_cpu_share(f"/kubepods/burstable/pod{UID}/{CID}")


def test_users_rules_come_first_and_in_order(tmp_path):
    file = tmp_path / "rules.toml"
    file.write_text(
        r"""
        [[rule]]
        path = '/batch/(?P<team>[^/]+)/(?P<job>[^/]+)(?:/.*)?'
        workload = "{team}:{job:3}"
        class = "offline"

        [[rule]]
        path = '/batch/.*'
        class = "online"

        [[rule]]
        path = '/system\.slice/nginx\.service'
        class = "system"
        """
    )
    rules = load_rules(file)
    assert rules.classify("/batch/search/index/1", CpuShare()) == Identity("search:ind", "offline")
    assert rules.classify("/batch/x", CpuShare(is_idle=True)) == Identity("batch/x", "online")
    assert rules.classify("/system.slice/nginx.service", CpuShare()).service_class == "system"
    assert rules.classify("/system.slice/other.service", CpuShare()) == unit("other.service")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[rule]]\npath = '/a'\nclas = 'online'", "rule 1: unknown key 'clas'; did you mean 'class'?"),
        ("[[rule]]\npath = '/a'\nowner = 'me'", "rule 1: unknown key 'owner'; known: path, workload, class"),
        ("[[rules]]\npath = '/a'", "unknown key 'rules'; did you mean 'rule'?"),
        ("[rule]\npath = '/a'", "rule: must be a list of tables"),
        ("[[rule]]\npath = '/a'\n[[rule]]\nclass = 'online'", "rule 2: path is missing"),
        ("[[rule]]\npath = '/a'\nclass = 'batch'", "rule 1: class: 'batch' is none of online, offline, system"),
        ("[[rule]]\npath = 7", "rule 1: path: must be a text that is not empty, not 7"),
        ("[[rule]]\npath = '/a'\nworkload = ''", "rule 1: workload: must be a text that is not empty"),
        ("[[rule]]\npath = '/a('", "rule 1: path: '/a(' is no regular expression"),
        ("[[rule]]\npath = 'kubepods/.*'", "rule 1: path: 'kubepods/.*' never matches"),
        (
            "[[rule]]\npath = '/(?P<a>.*)'\nworkload = '{b}'",
            "rule 1: workload: {b} is no named group of path; it has: a",
        ),
        ("[[rule]]\npath = '/(?P<a>.*)'\nworkload = '{a!r}'", "rule 1: workload: stray '{'"),
        ("[[rule]\n", "not TOML"),
    ],
)
def test_a_bad_rule_file_gets_one_line(tmp_path, text, says):
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(BadInput) as caught:
        read_rules(file)
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_a_rule_file_that_cannot_be_read(tmp_path):
    with pytest.raises(BadInput, match=r"none\.toml: workload rules cannot be read: No such file"):
        read_rules(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    with pytest.raises(BadInput, match=r"latin\.toml: not TOML"):
        read_rules(tmp_path / "latin.toml")


def test_escapes_are_decoded_only_into_printable_text():
    assert decode_systemd(r"a\x2db\x20c") == "a-b c"
    assert decode_systemd(r"caf\xc3\xa9") == "café"
    for kept in (r"a\x0ab", r"a\x1b[31m", r"a\xff", r"a\x2", r"a\u0041"):
        assert decode_systemd(kept) == kept


@given(
    st.text(max_size=60).map("/".__add__)
    | st.from_regex(r"(/(kubepods|docker|lxc|a\.slice|b\.scope|[0-9a-f]{64})){0,6}")
)
def test_every_path_has_a_workload_and_a_class(path):
    identity = classify(path)
    assert identity.workload
    assert identity.service_class in SERVICE_CLASSES


@pytest.mark.parametrize(
    "segment", ["/kubepods/besteffort", "/docker", "/a.service.", "/libpod-", "/" + "0" * 63, "/lxc."]
)
def test_hostile_paths_do_not_stall_the_matcher(segment):
    path = (segment * 4096)[:4095]
    started_ns = time.process_time_ns()
    classify(path)
    assert time.process_time_ns() - started_ns < 200_000_000


def test_default_rules_all_have_a_use():
    """Every default rule is the first match of some path above, so none is dead."""
    rules = read_rules(DEFAULT_RULES)
    paths = next(mark.args[1] for mark in test_default_rules.pytestmark)
    first = {next((i for i, rule in enumerate(rules) if rule.path.fullmatch(path)), None) for path, _ in paths}
    assert first >= set(range(len(rules)))
