#!/bin/bash
# mdmirror is killed right before each of its steps: what is left is told, goes on and can be taken back
# lab: suites=bookworm:full vg=2G time=1500
. /lab/lib.sh

# killed N COMMAND...: mdmirror is killed right before its Nth step; false when it has
# ended before that. What it was about to do is in $at.
killed() {
    local n=$1 got=0
    shift
    { XENLVM_KILL_AT=$n mdmirror "$@" --verbose >/run/out 2>&1; } 2>/dev/null || got=$? # bash tells of it
    case $got in
    137) at=$(tail -n 1 /run/out | sed 's/^mdmirror: \[[^]]*\] //') ;;
    0) return 1 ;;
    *) fail "mdmirror $*, to be killed at $n: status $got: $(cat /run/out)" ;;
    esac
}

# sweep CHECK COMMAND...: mdmirror is killed before every step that any of its runs
# has, and run again until it is through. CHECK is called where it was killed.
sweep() {
    local check=$1 n=1 began=$SECONDS
    local -A seen=()
    shift
    while killed "$n" "$@"; do
        if [ "${seen[$at]-}" = yes ]; then
            n=$((n + 1))
            continue
        fi
        seen[$at]=yes n=1 # what was done is not among the steps of the next run
        explained
        "$check"
        lab_survived
    done
    echo "ok: mdmirror $*: killed before ${#seen[@]} steps, and went on ($((SECONDS - began)) s)"
}

# explained: status is no error, and says more than that something is wrong.
explained() {
    local got=0
    mdmirror status vm3 >/run/status 2>&1 || got=$?
    case $got in
    0 | 10) ;;
    11 | 12) [ "$(wc -l </run/status)" -gt 1 ] || fail "status explains nothing: $(cat /run/status)" ;;
    *) fail "status: $got: $(cat /run/status)" ;;
    esac
    echo "    before: $at: $(grep -m 1 '^mdmirror:' /run/status || true)"
}

tagged() { [ "$(lvs --noheadings -o lv_tags vg0/vm3-xvda | grep -c incomplete)" = 1 ]; }
on_volume() { grep -q phy:/dev/vg0/vm3-xvda /etc/xen/vm3.cfg; }
# finished: the configuration names no volume that is marked.
finished() { ! on_volume || ! tagged || fail "the configuration names a volume that is marked, before: $at"; }

# aborted: abort takes all back, but for a volume that is marked.
aborted() {
    mdmirror abort vm3 >/run/out 2>&1 || fail "abort after $at: $(cat /run/out)"
    local left
    left=$(lab_new | grep -v -e '^lv vg0/vm3-xvda .*xenlvm.incomplete' -e '^dm vg0-vm3--xvda$' || true)
    [ -z "$left" ] || fail "left by abort after $at: $left"
    mdmirror abort vm3 2>&1 | grep -q 'nothing to do' || fail "there was more to abort after $at"
}
# anew: the volume is to be made, and the image in the configuration.
anew() {
    [ ! -e /dev/vg0/vm3-xvda ] || lvremove -q -y vg0/vm3-xvda >/dev/null
    cp /run/image.cfg /etc/xen/vm3.cfg
}
quietly() { "$@" >/run/out 2>&1 || fail "$*: $(cat /run/out)"; }

# on_mirror: start the DomU on its mirror.
on_mirror() {
    sed 's|file:/srv/images/vm3.img|phy:/dev/mapper/xenlvm-vm3-xvda|' /etc/xen/vm3.cfg >/run/vm3.cfg
    xl create -q /run/vm3.cfg
    verified
}
# verified: the DomU has started once more, and found its records.
verified() {
    starts=$((starts + 1))
    wait_for 120 lab_said vm3 '^GUEST verified disk=xvda ' "$starts" || fail "it does not verify its records"
}
starts=0
goes_on() { check "the DomU goes on" lab_wait_records vm3 $(($(lab_records vm3) + 20)) 90; }

lab_vg
lab_images_lv 256M
lab_image /srv/images/vm3.img 48M
lab_domu vm3 file:/srv/images/vm3.img,xvda,w
cp /etc/xen/vm3.cfg /run/image.cfg
lab_baseline

echo "nobody uses the mirror, and what was killed is aborted"
for ((n = 1; ; n++)); do
    killed "$n" build vm3 || break
    explained
    aborted
    [ -z "$(lab_new)" ] || fail "left after $at: $(lab_new)"
    lab_survived
done
check "build: $((n - 1)) steps" test "$n" -gt 6
aborted
for presync in '' --presync; do
    for ((n = 1; ; n++)); do
        quietly mdmirror build vm3
        killed "$n" add --to vg0 $presync vm3 || break
        explained
        if ((n % 2)); then # every other one is gone on with first
            quietly mdmirror add --to vg0 $presync vm3
            quietly mdmirror add vm3
        fi
        aborted
        anew
        lab_survived
    done
    check "add $presync: $((n - 1)) steps" test "$n" -gt 6
    aborted
    anew
done
for ((n = 1; ; n++)); do
    quietly mdmirror build vm3
    quietly mdmirror add --to vg0 vm3
    quietly mdmirror wait vm3
    killed "$n" finish vm3 || fail "finish has no step behind the change of the configuration"
    explained
    ! on_volume || break
    aborted
    tagged || fail "a volume without its mark after $at"
    anew
    lab_survived
done
check "finish: $n steps" test "$n" -gt 7
sweep finished finish vm3
anew

echo "a domain runs on the mirror, and goes back"
quietly mdmirror build vm3
on_mirror
quietly mdmirror add --to vg0 vm3
quietly mdmirror wait vm3
check "finish, killed" killed 2 finish vm3
check "marked before: $at" tagged
check "finish, killed again" killed 2 finish vm3
! tagged || fail "marked before: $at"
! on_volume || fail "in the configuration before: $at"
explained
# returned: the volume is marked, and as soon as it has not everything nobody gets onto it.
returned() {
    [[ $at == tag\ * ]] || tagged || fail "a volume without its mark before: $at"
    ! grep -q 'goes on on /srv/images/vm3.img' /run/status || ! mdmirror finish vm3 >/run/out 2>&1 || fail "finish did not see that abort had begun"
}
sweep returned abort vm3
goes_on
check "stop" lab_shutdown vm3
aborted

echo "a domain runs on the mirror, and gets onto the volume"
quietly mdmirror build vm3
on_mirror
sweep true add --to vg0 --presync vm3
quietly mdmirror add vm3
goes_on
check "wait" mdmirror wait vm3
check "verify" mdmirror verify vm3
mdmirror finish --dry-run vm3 >/run/out
grep -q '^dmsetup resume xenlvm-vm3-xvda$' /run/out || fail "finish --dry-run: $(cat /run/out)"
sweep finished finish vm3
mdmirror finish vm3 2>&1 | grep -q 'nothing to do' || fail "there was more to finish"
check "nothing to abort" mdmirror abort vm3
goes_on
xl reboot vm3
verified
goes_on
check "stop" lab_shutdown vm3
lab_points vm3
lab_leftovers 'lv vg0/vm3-xvda xenlvm.domain.vm3' 'dm vg0-vm3--xvda'
