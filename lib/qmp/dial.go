package qmp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"xenlvm/lib/fault"
	"xenlvm/lib/run"
)

// Dial connects to the QMP socket of a QEMU. It waits for its turn: another client
// makes it wait, without any sign from QEMU. Patience is how long that may take,
// and then how long the answer to each command: all that takes longer is a job.
func Dial(ctx context.Context, socket string, patience time.Duration) (*Client, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not free within %v", patience))
	defer cancel()
	conn, err := connect(ctx, socket)
	if err != nil {
		return nil, err
	}
	c := &Client{socket: socket, patience: patience, conn: conn, turn: make(chan struct{}, 1)}
	if err := c.greet(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// connect goes on trying while QEMU's queue, which has room for one, is full.
func connect(ctx context.Context, socket string) (net.Conn, error) {
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		switch {
		case err == nil:
			return conn, nil
		case ctx.Err() != nil:
			return nil, busy(socket, context.Cause(ctx))
		case !errors.Is(err, unix.EAGAIN):
			return nil, fmt.Errorf("cannot reach QEMU: %w", err)
		}
		_ = wait(ctx) // then the next attempt says so
	}
}

func busy(socket string, cause error) error {
	err := fmt.Errorf("cannot talk to QEMU at %s: another program holds its only connection: %w", socket, cause)
	return fault.Hint(err, "%s | grep %s", run.Quote("ss", "-xp"), filepath.Base(socket))
}

// greet reads the greeting and leaves the negotiation that follows it.
func (c *Client) greet(ctx context.Context) error {
	var m message
	err := c.bound(ctx, func() (err error) {
		m, err = c.receive()
		return err
	})
	if err != nil && ctx.Err() != nil && len(c.in) == 0 {
		return busy(c.socket, context.Cause(ctx))
	}
	if err == nil && m.Greeting == nil {
		err = errors.New("it is not a QMP socket")
	}
	if err != nil {
		return fmt.Errorf("cannot talk to QEMU at %s: %w", c.socket, err)
	}
	return c.Execute(ctx, "qmp_capabilities", nil, nil)
}
