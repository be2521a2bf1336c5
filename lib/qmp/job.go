package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// job is a mirror in query-jobs. It stays there, concluded, until it is
// dismissed: so its end cannot be missed, whoever was listening.
type job struct {
	ID       string `json:"id"`
	Status   string `json:"status"`
	Done     int64  `json:"current-progress"`
	Total    int64  `json:"total-progress"`
	Error    string `json:"error"`
	finished bool   // Status is concluded
}

// job finds the mirror's job, nil if there is none.
func (m *Mirror) job(ctx context.Context) (*job, error) {
	var jobs []job
	if err := m.client.Execute(ctx, "query-jobs", nil, &jobs); err != nil {
		return nil, err
	}
	for _, j := range jobs {
		if j.ID == m.node {
			j.finished = j.Status == "concluded"
			return &j, nil
		}
	}
	return nil, nil
}

// command runs a command on the mirror's job.
func (m *Mirror) command(ctx context.Context, name string) error {
	return m.client.Execute(ctx, name, map[string]string{"id": m.node}, nil)
}

// failure is why a job that has concluded failed, nil if it did not.
func (m *Mirror) failure(j *job) error {
	if j.Error == "" {
		return nil
	}
	why := errors.New(printable(j.Error))
	switch m.failed.Load() {
	case "read":
		return fmt.Errorf("cannot read the guest's disk: %w", why)
	case "write":
		return fmt.Errorf("cannot write to the destination: %w", why)
	}
	return why
}

// watch remembers what a job failed at: only an event says it.
func (m *Mirror) watch(e Event) {
	var data struct{ Device, Operation string }
	if e.Name == "BLOCK_JOB_ERROR" && json.Unmarshal(e.Data, &data) == nil && data.Device == m.node {
		m.failed.Store(data.Operation)
	}
}
