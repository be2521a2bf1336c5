#!/bin/bash
# a DomU moves file by file into a smaller ext4 that is there already
# lab: vg=8G time=900
. /lab/lib.sh

lab_vg
lab_images_lv 2G
lab_image /srv/images/vm3.img 1G
mkdir /mnt/image && mount -o loop /srv/images/vm3.img /mnt/image
cp -a /etc /mnt/image/etc
mkdir /mnt/image/odd
(
    cd /mnt/image/odd || exit 1
    echo linked >a && ln a b && ln -s a c && mknod dev c 1 3 && mkfifo fifo
    truncate -s 100M sparse && echo end >>sparse
    echo acl >acl && setfacl -m u:4242:r acl && setfattr -n user.note -v text acl
    cp /bin/true cap && setcap cap_net_raw+ep cap
    : >$'new\nline' && : >$'\xff\xfe' && chown 4000000000:4000000000 $'\xff\xfe'
)
umount /mnt/image && rmdir /mnt/image

lab_domu vm3 file:/srv/images/vm3.img,xvda,w
lvcreate -q -y -W n -n small -L 300M vg0
mkfs.ext4 -q -L new /dev/vg0/small
lab_baseline
check "start" lab_start vm3
lab_wait_records vm3 30 180
lab_move vm3 --to xvda=vg0/small
check "it went by files" grep -q '"method":"files"' /var/lib/xenlvm/vm3/journal.jsonl

mkdir -p /mnt/old /mnt/new
mount -o ro,loop /srv/images/vm3.img /mnt/old && mount -o ro /dev/vg0/small /mnt/new
for f in a b c dev fifo sparse acl cap $'new\nline' $'\xff\xfe'; do
    check "kept: $(printf %q "$f")" test "$(cd /mnt/old/odd && stat -c '%F %a %u %g %s %t:%T %h %Y %N' "$f" && getfacl -nc "$f" 2>&1)" = \
        "$(cd /mnt/new/odd && stat -c '%F %a %u %g %s %t:%T %h %Y %N' "$f" && getfacl -nc "$f" 2>&1)"
done
check "capabilities kept" test "$(cd /mnt/new/odd && getcap cap)" = "cap cap_net_raw=ep"
check "holes kept" test "$(stat -c %b /mnt/new/odd/sparse)" -lt 100
check "/etc kept" diff -r --no-dereference /mnt/old/etc /mnt/new/etc
umount /mnt/old /mnt/new && rmdir /mnt/old /mnt/new
lab_leftovers 'lv vg0/small xenlvm.domain.vm3'
