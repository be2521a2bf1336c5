package journal

import "encoding/json"

// BackDoor is a snapshot of a volume from before its domain first ran there. It tells
// what of the volume has to be brought back into the image that the domain left.
type BackDoor struct {
	VDev   string `json:"vdev"`
	Image  Image  `json:"image"`
	LV     string `json:"lv"` // VG/LV
	LVUUID string `json:"lv_uuid"`
	// Snapshot is VG/LV. Its UUID is "" until it is made.
	Snapshot     string `json:"snapshot"`
	SnapshotUUID string `json:"snapshot_uuid,omitempty"`
	Digests      string `json:"digests"` // file beside the journal: what image and volume had in common
}

// Image is an image file as it was left. The number of its device is not in it: it may
// be another one after a boot.
type Image struct {
	Path     string `json:"path"`
	Inode    uint64 `json:"inode"`
	Size     int64  `json:"size"`     // bytes
	Modified int64  `json:"mtime_ns"` // since 1970
}

// HalfWritten are the images, by path, into which a volume is being brought back: as
// long as that has not ended, nothing may start from them.
func HalfWritten(records []Record) map[string]BackDoor {
	half := map[string]BackDoor{}
	for _, r := range records {
		var b BackDoor
		if r.Kind != KindReplaying && r.Kind != KindReplayed || json.Unmarshal(r.Data, &b) != nil {
			continue
		}
		if r.Kind == KindReplaying {
			half[b.Image.Path] = b
		} else {
			delete(half, b.Image.Path)
		}
	}
	return half
}
