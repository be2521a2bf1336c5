#!/bin/bash
# imgconv is killed right before steps, and changes, that it makes: the same command goes on, or abort takes all back,
# while the DomU writes. With the argument --full, before every one of them
# lab: suites=bookworm:full vg=2G time=3600
. /lab/lib.sh

every=3
[ "${1-}" != --full ] || every=1

lab_vg
lab_images_lv 256M
lab_image /srv/images/vm3.img 32M
lab_domu vm3 file:/srv/images/vm3.img,xvda,w
lab_start vm3
lab_wait_records vm3 30 120
cp /etc/xen/vm3.cfg /run/image.cfg
lab_baseline

# killed VARIABLE N: a copy is killed right before its Nth step (XENLVM_KILL_AT; undoing counts),
# or right before the Nth command that changes something (XENLVM_KILL_COMMAND). False when it
# has ended before that.
killed() {
    local got=0
    { env "$1=$2" imgconv --snapshot --to vg0 --verbose vm3 >/dev/null 2>/run/imgconv; } 2>/dev/null || got=$?
    case $got in
    137) at="$1=$2, behind: $(tail -n 1 /run/imgconv | sed 's/^imgconv: //')" ;;
    0) return 1 ;;
    *) fail "imgconv, to be killed at $2: status $got: $(cat /run/imgconv)" ;;
    esac
}
quietly() { "$@" >/run/out 2>&1 || fail "$*, $at: $(cat /run/out)"; }

# only PATTERN: nothing but what matches is new.
only() {
    local left
    left=$(lab_new | grep -vE "$1" || true)
    [ -z "$left" ] || fail "left $at: $left"
}
volume='^dm vg0-vm3--xvda$|^lv vg0/vm3-xvda '

# aborted: nothing is left, and there is nothing more to abort. What has a finished copy is kept.
aborted() {
    quietly domuswitch abort vm3
    only "$volume"
    quietly domuswitch abort vm3
    grep -q 'nothing to do' /run/out || fail "there was more to abort, $at: $(cat /run/out)"
    [ ! -e /dev/vg0/vm3-xvda ] || quietly lvremove -y vg0/vm3-xvda
}
# completed: it goes on, and once more, which leaves all as it is.
completed() {
    quietly imgconv --snapshot --to vg0 vm3
    only '^dm vg0-vm3--xvda$|^lv vg0/vm3-xvda xenlvm.domain.vm3$'
    quietly imgconv --snapshot vm3
    only '^dm vg0-vm3--xvda$|^lv vg0/vm3-xvda xenlvm.domain.vm3$'
}

for variable in XENLVM_KILL_AT XENLVM_KILL_COMMAND; do
    began=$SECONDS points=0
    for ((n = every > 1 ? 2 : 1; ; n += every)); do
        killed $variable $n || break
        points=$((points + 1))
        echo "killed at $at"
        cmp -s /run/image.cfg /etc/xen/vm3.cfg || fail "the configuration was changed, $at"
        ((points % 2)) || completed
        aborted
        lab_survived
    done
    at="$variable, done"
    aborted
    ((points > 1)) || fail "only $points points"
    echo "ok: $variable: $points points ($((SECONDS - began)) s)"
done
check "a whole copy at last" imgconv --snapshot --to vg0 vm3
check "the DomU goes on" lab_wait_records vm3 $(($(lab_records vm3) + 20)) 90
check "stop" lab_shutdown vm3
check "the final pass" imgconv --snapshot --final --whole vm3
check "identical" cmp -n $((32 << 20)) /srv/images/vm3.img /dev/vg0/vm3-xvda
check "start" lab_start vm3
wait_for 120 lab_said vm3 '^GUEST verified disk=xvda ' 2 || fail "it does not verify its records"
check "stop" lab_shutdown vm3
lab_points vm3
lab_leftovers 'lv vg0/vm3-xvda *' 'dm vg0-vm3--xvda'
