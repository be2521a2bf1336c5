#!/bin/bash
# domuswitch puts a writing guest onto other disks with no reboot, and back when that fails; a qcow2 guest by way of QEMU
# lab: suites=bookworm,trixie:full vg=2G time=1500
. /lab/lib.sh

# refuses STATUS PATTERN COMMAND...: a command that must fail, and say why.
refuses() {
    local want=$1 pattern=$2 status=0
    shift 2
    "$@" >/run/said 2>&1 || status=$?
    cat /run/said
    [ "$status" = "$want" ] && grep -qE -- "$pattern" /run/said
}

# on DEVICE: has vm3 this device as its disk?
on() {
    local node number
    node=$(xenstore-read "/local/domain/$(xl domid vm3)/device/vbd/51712/backend")
    number=$(xenstore-read "$node/physical-device")
    [ "$number" = "$(printf '%x:%x' $((0x$(stat -Lc %t "$1"))) $((0x$(stat -Lc %T "$1"))))" ] || { echo "it has $number"; return 1; }
}

# boots: how often vm3 has booted.
boots() { lab_console vm3 | grep -c '^GUEST boot '; }

# goes_on BOOTS: vm3 writes, and has booted so often.
goes_on() {
    lab_wait_records vm3 $(($(lab_records vm3) + 20)) 120
    [ "$(boots)" = "$1" ] || fail "vm3 has booted $(boots) times, not $1"
}

# mirror: what mdmirror puts above a disk, here above the volume itself.
mirror() { dmsetup create xenlvm-vm3-xvda --uuid XENLVM-test --table "0 $(blockdev --getsz /dev/vg0/a) linear /dev/vg0/a 0"; }

# An xl that does as files in /run say: it hides what a migration needs, takes the
# new device away right before it is used, or kills its caller.
real=$(command -v xl)
cat >/usr/local/sbin/xl <<END
#!/bin/sh
case \$1 in
info) if [ -e /run/no-migration ]; then $real "\$@" | sed '/^virt_caps/s/shadow//; /^virt_caps/s/hap//'; exit; fi ;;
restore) if [ -e /run/vanish ] && [ \$# = 4 ]; then dmsetup remove xenlvm-vm3-xvda; fi ;;
migrate) if [ -e /run/vanish ]; then dmsetup remove xenlvm-vm3-xvda; fi ;;
esac
if [ -e "/run/kill-\$1" ]; then
    rm "/run/kill-\$1"
    $real "\$@"
    kill -9 "\$PPID"
    exit
fi
exec $real "\$@"
END
chmod +x /usr/local/sbin/xl
hash -r
[ "$(command -v xl)" = /usr/local/sbin/xl ] || fail "the other xl comes first: $PATH"

lab_vg
for lv in a b; do lvcreate -q -y -W n -n $lv -L 128M vg0; done
mkfs.ext4 -q /dev/vg0/a
lab_domu vm3 phy:/dev/vg0/a,xvda,w
cp /etc/xen/vm3.cfg /run/vm3.cfg
lab_images_lv 512M
lab_image /srv/images/raw.img 130M
qemu-img convert -f raw -O qcow2 /srv/images/raw.img /srv/images/q.qcow2
rm /srv/images/raw.img
lvcreate -q -y -W n -n q -L 132M vg0
lab_baseline

check "vm3 starts" domuswitch start vm3
xl list -l vm3 | head -n 40
xl -N create -q /etc/xen/vm3.cfg | head -n 60
xl info | grep -E 'virt_caps|free_memory'
xenstore-ls /local/domain/0/backend/vbd
lab_wait_records vm3 20 120
mirror

# 1. as the hypervisor can do it, and by its memory
check "a volume that is not equal is refused" refuses 3 'what the guest writes to /dev/vg0/a is not there' domuswitch live vm3 xvda=/dev/vg0/b
check "a long pause is refused" refuses 3 'max-pause allows 100ms' domuswitch live --max-pause 0.1 vm3 xvda=/dev/mapper/xenlvm-vm3-xvda
check "live onto the mirror" domuswitch live --verbose vm3 xvda=/dev/mapper/xenlvm-vm3-xvda
check "it is there" on /dev/mapper/xenlvm-vm3-xvda
goes_on 1
check "a second time nothing is to do" refuses 0 'nothing to do' domuswitch live vm3 xvda=/dev/mapper/xenlvm-vm3-xvda
check "live back onto the volume" domuswitch live --json vm3 xvda=/dev/vg0/a
check "it is there" on /dev/vg0/a
goes_on 1
touch /run/no-migration
check "live by its memory" domuswitch live --json vm3 xvda=/dev/mapper/xenlvm-vm3-xvda
check "it is there" on /dev/mapper/xenlvm-vm3-xvda
goes_on 1
check "and back" domuswitch live vm3 xvda=/dev/vg0/a
goes_on 1
check "no memory is left" test -z "$(ls /dev/shm)"
check "the configuration is what it was" cmp /etc/xen/vm3.cfg /run/vm3.cfg

# 2. the new device is gone when xl wants it
touch /run/vanish
check "a restore that fails goes back" refuses 1 'runs on its old disks again, and was not rebooted' domuswitch live vm3 xvda=/dev/mapper/xenlvm-vm3-xvda
check "it is on the volume" on /dev/vg0/a
goes_on 1
if [ "$LAB_SUITE" = bookworm ]; then
    rm /run/no-migration
    mirror
    check "a migration that fails leaves it" refuses 1 'it runs on as before' domuswitch live vm3 xvda=/dev/mapper/xenlvm-vm3-xvda
    check "it is on the volume" on /dev/vg0/a
    goes_on 1
    touch /run/no-migration
fi
rm /run/vanish
mirror
check "no memory is left" test -z "$(ls /dev/shm)"

# 3. killed at each step, and the same command once more
for verb in save restore unpause; do
    touch "/run/kill-$verb"
    check "killed behind xl $verb" refuses 137 '' domuswitch live vm3 xvda=/dev/mapper/xenlvm-vm3-xvda
    [ "$verb" != save ] || check "it is not started anew" refuses 3 'its memory is in' domuswitch start vm3
    check "the same once more" domuswitch live vm3 xvda=/dev/mapper/xenlvm-vm3-xvda
    check "it is on the mirror" on /dev/mapper/xenlvm-vm3-xvda
    goes_on 1
    check "and back" domuswitch live vm3 xvda=/dev/vg0/a
    goes_on 1
    check "no memory is left" test -z "$(ls /dev/shm)"
done

# 4. one interruption
check "what it would lose is said" refuses 3 'would not be there' domuswitch restart vm3 xvda=/dev/vg0/b
check "restart onto the mirror" domuswitch restart vm3 xvda=/dev/mapper/xenlvm-vm3-xvda
goes_on 2
check "the configuration is what it was" cmp /etc/xen/vm3.cfg /run/vm3.cfg
touch /run/kill-create
check "back, killed behind xl create" refuses 137 '' domuswitch restart vm3 xvda=/dev/vg0/a
xl list
check "it is let run" xl unpause vm3
goes_on 3
check "nothing is left to do" refuses 0 'nothing to do' domuswitch restart vm3 xvda=/dev/vg0/a
check "live onto the mirror again" domuswitch live vm3 xvda=/dev/mapper/xenlvm-vm3-xvda
goes_on 3

# 5. the end of a mirror: the file named another disk, and a reboot starts from the new one
sed -i 's|/dev/vg0/a|/dev/vg0/b|' /etc/xen/vm3.cfg
printf 'vm3\txvda\t/dev/vg0/b\t/dev/vg0/a\tsynced\n' >/run/lines
check "the volume of a mirror is applied" domuswitch apply - </run/lines
check "a second time nothing is to do" refuses 0 'nothing to do' domuswitch apply - </run/lines
check "the configuration names it" cmp /etc/xen/vm3.cfg /run/vm3.cfg
check "it reboots" xl reboot vm3
wait_for 120 lab_said vm3 '^GUEST boot 4 ' || fail "vm3 does not come back from its reboot"
check "onto the volume" on /dev/vg0/a
check "nobody uses the mirror" dmsetup remove xenlvm-vm3-xvda
goes_on 4
check "vm3 shuts down" lab_shutdown vm3
lab_judge vm3
check "its file system is clean" e2fsck -fn /dev/vg0/a

# 6. a guest that QEMU serves
lab_domu q /srv/images/q.qcow2,qcow2,xvda,w
check "q starts" domuswitch start q
lab_wait_records q 20 120
dd if=/dev/urandom of=/dev/vg0/q bs=1M count=1 oflag=direct status=none
check "a volume that holds something is refused" refuses 3 'it holds' domuswitch live q xvda=/dev/vg0/q
check "also as one of LVM's" refuses 3 'it holds' image-to-lv --plan live --to xvda=vg0/q q
lvremove -q -y vg0/q # what it holds is where the next one is made
check "QEMU does not wait" refuses 3 'leave --prepare out' image-to-lv --plan live --prepare --to vg0 q
test -z "$(lvs --noheadings vg0/q-xvda 2>/dev/null)" || fail "a volume was made"
domuswitch live --bwlimit 1M --to vg0 q >/run/copy 2>&1 &
pid=$!
copying() { [ "$(lvs --noheadings -o lv_device_open vg0/q-xvda 2>/dev/null | tr -d ' ')" = open ] && grep -q '"copying"' /var/lib/xenlvm/q/journal.jsonl; }
wait_for 60 copying || fail "QEMU does not copy: $(cat /run/copy)"
kill -KILL "$pid"
wait "$pid" || true
cat /run/copy
check "the volume is marked" test "$(lvs --noheadings -o lv_tags vg0/q-xvda | tr -d ' ')" = xenlvm.domain.q,xenlvm.incomplete
domuswitch live q >/run/copy 2>&1 &
pid=$!
wait_for 60 grep -q 'going on with the copy' /run/copy || fail "it does not take the copy up: $(cat /run/copy)"
kill -INT "$pid"
status=0
wait "$pid" || status=$?
cat /run/copy
check "it took the copy up, and gave it up" test "$status" = 130
check "nobody has the volume" test -z "$(lvs --noheadings -o lv_device_open vg0/q-xvda | tr -d ' ')"
lab_wait_records q $(($(lab_records q) + 20)) 120
check "q moves with no pause" image-to-lv --plan live q >/run/lines
grep "$(printf '^q\txvda\t/srv/images/q.qcow2\t/dev/vg0/q-xvda\tswitched$')" /run/lines || fail "it printed: $(cat /run/lines)"
check "the volume is not marked" test "$(lvs --noheadings -o lv_tags vg0/q-xvda | tr -d ' ')" = xenlvm.domain.q
check "the configuration names it" grep -q '/dev/vg0/q-xvda,raw,xvda' /etc/xen/q.cfg
check "nobody has the image open" umount /srv/images
check "a second time nothing is to do" refuses 0 'nothing to do: q has no disk on an image' image-to-lv --plan live q
check "nor by name" refuses 0 'nothing to do' domuswitch live q xvda=/dev/vg0/q-xvda
lab_wait_records q $(($(lab_records q) + 50)) 120
check "q reboots" xl reboot q
wait_for 180 lab_said q '^GUEST verified disk=xvda ' 2 || fail "q does not verify its records"
check "onto the volume, by the kernel" test "$(xenstore-read "/local/domain/$(xl domid q)/device/vbd/51712/backend" | cut -d / -f 6)" = vbd
check "q shuts down" lab_shutdown q
lab_judge q
check "its file system is clean" e2fsck -fn /dev/vg0/q-xvda
mount /dev/vg0/images /srv/images

# 7. the host dies right behind QEMU's switch: the volume has what the guest wrote last, the file names the image
lab_image /srv/images/raw.img 130M
qemu-img convert -f raw -O qcow2 /srv/images/raw.img /srv/images/r.qcow2
rm /srv/images/raw.img
lab_domu r /srv/images/r.qcow2,qcow2,xvda,w
check "r starts" domuswitch start r
lab_wait_records r 20 120
check "killed right behind the switch" refuses 137 'switch disk xvda of r' env XENLVM_KILL_AT=6 domuswitch live --to vg0 r
check "the file names the image" grep -q '/srv/images/r.qcow2,qcow2,xvda' /etc/xen/r.cfg
check "and show says that this may be wrong" refuses 0 'QEMU was told to put disk xvda onto /dev/vg0/r-xvda' domuswitch show r
check "r is not restarted on the image" refuses 3 'QEMU knows where it is' domuswitch restart --yes r xvda=/dev/vg0/b
lab_wait_records r $(($(lab_records r) + 50)) 120
xl destroy r
check "r is not started on the image" refuses 3 'if /dev/vg0/r-xvda is the newer one' domuswitch start r
grep -o 'lvchange --deltag .*' /run/said >/run/onto || fail "no command is named"
sed -i 's/ && /\n/g' /run/onto
check "r starts on the volume, as the hint says" bash -ex /run/onto
wait_for 180 lab_said r '^GUEST verified disk=xvda ' 2 || fail "r does not verify its records"
check "r shuts down" lab_shutdown r
lab_judge r
lab_leftovers 'lv vg0/q-xvda xenlvm.domain.q' 'dm vg0-q--xvda' 'lv vg0/r-xvda xenlvm.domain.r' 'dm vg0-r--xvda'
