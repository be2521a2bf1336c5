package diskimg

import (
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"os"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/partition/gpt"
)

// sfdiskSays fails unless sfdisk lists the same partitions.
func sfdiskSays(t *testing.T, path string, got *PartitionTable) {
	t.Helper()
	var out struct {
		PartitionTable struct {
			Label, ID  string
			Partitions []struct {
				Node, Type, UUID, Name string
				Start, Size            int64
				Bootable               bool
			}
		}
	}
	if err := json.Unmarshal([]byte(tool(t, "sfdisk", "-J", path)), &out); err != nil {
		t.Fatal(err)
	}
	want := out.PartitionTable
	if strings.TrimPrefix(strings.ToLower(want.ID), "0x") != strings.ToLower(got.UUID) {
		t.Errorf("disk id %s, sfdisk %s", got.UUID, want.ID)
	}
	i := 0
	for _, w := range want.Partitions {
		if w.Type == "5" || w.Type == "f" {
			continue
		}
		if i >= len(got.Partitions) {
			t.Fatalf("partition %s is missing", w.Node)
		}
		g := got.Partitions[i]
		i++
		if !strings.HasSuffix(w.Node, string(rune('0'+g.Number))) || g.Start != w.Start*512 || g.Size != w.Size*512 ||
			!sameType(g.Type, w.Type) || g.Name != w.Name || g.Bootable != w.Bootable && got.Type == "mbr" {
			t.Errorf("partition %+v, sfdisk %+v", g, w)
		}
		if got.Type == "gpt" && g.UUID != w.UUID {
			t.Errorf("partition UUID %s, sfdisk %s", g.UUID, w.UUID)
		}
	}
	if i != len(got.Partitions) {
		t.Errorf("%d partitions, sfdisk %d", len(got.Partitions), i)
	}
}

// sameType: sfdisk prints the type of an MBR entry without leading zeros.
func sameType(ours, theirs string) bool {
	return ours == theirs || len(ours) == 2 && strings.TrimLeft(ours, "0") == theirs
}

func table(t *testing.T, path string, kind string) *PartitionTable {
	t.Helper()
	info := mustProbe(t, path)
	if info.Kind != Table || info.Table.Type != kind || info.Table.Damaged != nil {
		t.Fatalf("%+v %+v", info, info.Table)
	}
	return info.Table
}

const dos = `label: dos
1: start=2048, size=8192, type=83, bootable
2: start=12288, size=16384, type=82
3: start=30720, type=5
5: start=32768, size=4096, type=83
6: start=40960, size=4096, type=8e
7: start=49152, type=c
`

func TestMBR(t *testing.T) {
	path := sparse(t, 40*mib)
	script(t, dos, "sfdisk", "-q", path)
	part := sparse(t, 4*mib)
	tool(t, "mkfs.ext2", "-q", part)
	b, err := os.ReadFile(part)
	if err != nil {
		t.Fatal(err)
	}
	tab := table(t, path, "mbr")
	sfdiskSays(t, path, tab)
	if n := len(tab.Partitions); n != 5 {
		t.Fatalf("%d partitions, want 2 primary and 3 logical", n)
	}
	patch(t, path, tab.Partitions[0].Start, b)
	if s := table(t, path, "mbr").Partitions[0].Signature; s == nil || s.Type != "ext2" {
		t.Errorf("first partition holds %+v", s)
	}
}

func TestDamagedMBR(t *testing.T) {
	path := sparse(t, 40*mib)
	script(t, dos, "sfdisk", "-q", path)
	ebr := int64(30720 * 512)
	// The link of the first EBR leads to itself: relative sector 0.
	patch(t, path, ebr+446+16+8, make([]byte, 4))
	info := mustProbe(t, path)
	if info.Kind != Table || info.Table.Damaged == nil || !strings.Contains(info.Table.Damaged.Error(), "leads to") {
		t.Errorf("a loop of EBRs: %+v", info.Table)
	}
	patch(t, path, 446+12, []byte{0xff, 0xff, 0xff, 0x7f})
	if info = mustProbe(t, path); info.Kind != Table || info.Table.Damaged == nil {
		t.Errorf("a partition beyond the disk: %+v", info.Table)
	}
}

func TestGPT(t *testing.T) {
	path := sparse(t, 32*mib)
	script(t, "label: gpt\nsize=4096,type=U,name=\"EFI system\"\nsize=8192,type=L,name=root,attrs=LegacyBIOSBootable\ntype=L\n", "sfdisk", "-q", path)
	tab := table(t, path, "gpt")
	sfdiskSays(t, path, tab)
	if tab.SectorSize != 512 || tab.FromBackup || len(tab.Partitions) != 3 || !tab.Partitions[1].Bootable || tab.Partitions[0].Bootable {
		t.Errorf("%+v", tab)
	}

	// The first header damaged: the one at the end counts.
	patch(t, path, 512+60, []byte("damage"))
	if again := table(t, path, "gpt"); !again.FromBackup || len(again.Partitions) != 3 || again.Partitions[2] != tab.Partitions[2] {
		t.Errorf("from backup: %+v", again)
	}
	patch(t, path, 32*mib-512+60, []byte("damage"))
	if info := mustProbe(t, path); info.Kind != Table || info.Table.Type != "gpt" || info.Table.Damaged == nil {
		t.Errorf("both damaged: %+v", info.Table)
	}
}

// An intact GPT under a newer MBR is stale.
func TestStaleGPT(t *testing.T) {
	path := sparse(t, 32*mib)
	script(t, "label: gpt\ntype=L\n", "sfdisk", "-q", path)
	mbr := sparse(t, 32*mib)
	script(t, "label: dos\nstart=2048,size=4096,type=83\n", "sfdisk", "-q", mbr)
	b, err := os.ReadFile(mbr)
	if err != nil {
		t.Fatal(err)
	}
	patch(t, path, 0, b[:512])
	if tab := table(t, path, "mbr"); len(tab.Partitions) != 1 || tab.Partitions[0].Size != 4096*512 {
		t.Errorf("%+v", tab)
	}
	// And a GPT whose MBR was wiped is nothing, as for the kernel.
	patch(t, path, 0, make([]byte, 512))
	if info := mustProbe(t, path); info.Table != nil || info.Kind != Unknown {
		t.Errorf("%+v", info)
	}
}

func TestGPTOf4096ByteSectors(t *testing.T) {
	path := sparse(t, 64*mib)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	g := &gpt.Table{LogicalSectorSize: 4096, PhysicalSectorSize: 4096, ProtectiveMBR: true, Partitions: []*gpt.Partition{
		{Index: 1, Start: 256, End: 1023, Type: gpt.LinuxFilesystem, Name: "root"},
	}}
	w, err := file.New(f, false).Writable()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Write(w, 64*mib); err != nil {
		t.Fatal(err)
	}
	tab := table(t, path, "gpt")
	if tab.SectorSize != 4096 || len(tab.Partitions) != 1 || tab.Partitions[0].Start != mib || tab.Partitions[0].Size != 3*mib {
		t.Errorf("%+v", tab)
	}
}

// Headers with right checksums that ask for absurd tables must cost nothing:
// a guest can compute a checksum.
func TestHostileGPT(t *testing.T) {
	for _, field := range []struct {
		off int64
		b   string
	}{{80, "\xff\xff\xff\xff"}, {84, "\x00\x00\x00\x00"}, {84, "\xff\xff\xff\xff"}, {72, "\xff\xff\xff\xff\xff\xff\xff\x7f"}} {
		path := sparse(t, 32*mib)
		script(t, "label: gpt\ntype=L\n", "sfdisk", "-q", path)
		for _, header := range []int64{512, 32*mib - 512} {
			patch(t, path, header+field.off, []byte(field.b))
			patch(t, path, header+16, make([]byte, 4))
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			patch(t, path, header+16, binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(b[header:header+92])))
		}
		if info := mustProbe(t, path); info.Kind != Table || info.Table.Damaged == nil {
			t.Errorf("field at %d: %+v", field.off, info.Table)
		}
	}
}

// A filesystem with a partition table beside it is reported as both.
func TestBoth(t *testing.T) {
	path := sparse(t, 32*mib)
	tool(t, "mkfs.ext4", "-q", path)
	script(t, "label: dos\nstart=2048,type=83\n", "sfdisk", "-q", "--wipe", "never", path)
	if info := mustProbe(t, path); info.Kind != Filesystem || info.Also != "mbr" || info.Table != nil {
		t.Errorf("%+v", info)
	}
}
