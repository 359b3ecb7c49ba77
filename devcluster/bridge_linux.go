package devcluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// Nomad reads a client's address from a network interface, and on loopback
// all clients would have the same one. So each client of a larger cluster
// gets an empty bridge that carries its address. This talks to the kernel
// over netlink instead of running `ip`, because the supervisor must not have
// children besides the agents, and because not every machine has it.

const (
	iflaInfoKind = 1
	netlinkAck   = syscall.NLM_F_REQUEST | syscall.NLM_F_ACK
)

func attr(kind uint16, value []byte) []byte {
	b := make([]byte, 4, 4+len(value)+3)
	binary.NativeEndian.PutUint16(b, uint16(4+len(value)))
	binary.NativeEndian.PutUint16(b[2:], kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func netlink(kind uint16, flags int, body ...[]byte) error {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer func() { _ = syscall.Close(fd) }()
	msg := make([]byte, syscall.NLMSG_HDRLEN)
	for _, b := range body {
		msg = append(msg, b...)
	}
	binary.NativeEndian.PutUint32(msg, uint32(len(msg)))
	binary.NativeEndian.PutUint16(msg[4:], kind)
	binary.NativeEndian.PutUint16(msg[6:], uint16(netlinkAck|flags))
	if err := syscall.Sendto(fd, msg, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 8192)
	n, _, err := syscall.Recvfrom(fd, buf, 0)
	if err != nil {
		return err
	}
	msgs, err := syscall.ParseNetlinkMessage(buf[:n])
	if err != nil {
		return err
	}
	for _, m := range msgs {
		if m.Header.Type == syscall.NLMSG_ERROR && len(m.Data) >= 4 {
			if errno := -int32(binary.NativeEndian.Uint32(m.Data)); errno != 0 {
				return syscall.Errno(errno)
			}
			return nil
		}
	}
	return errors.New("the kernel did not answer")
}

// ifinfo is struct ifinfomsg.
func ifinfo(index int, flags, change uint32) []byte {
	b := make([]byte, 16)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	return b
}

// createBridge makes an empty bridge that carries the address.
func createBridge(name, addr string) error {
	ip := net.ParseIP(addr).To4()
	err := netlink(syscall.RTM_NEWLINK, syscall.NLM_F_CREATE|syscall.NLM_F_EXCL, ifinfo(0, 0, 0),
		attr(syscall.IFLA_IFNAME, append([]byte(name), 0)),
		attr(syscall.IFLA_LINKINFO, attr(iflaInfoKind, []byte("bridge"))))
	if errors.Is(err, syscall.EPERM) {
		return errors.New("a dev cluster with separate clients gives each a network interface, which takes root or CAP_NET_ADMIN: run it as root, or without --servers, --clients, --datacenters and --regions")
	}
	if err != nil {
		return fmt.Errorf("creating the network interface %s: %w", name, err)
	}
	nic, err := net.InterfaceByName(name)
	if err != nil {
		return fmt.Errorf("creating the network interface %s: %w", name, err)
	}
	// struct ifaddrmsg: family, prefix length, flags, scope, index
	msg := make([]byte, 8)
	msg[0], msg[1] = syscall.AF_INET, 32
	binary.NativeEndian.PutUint32(msg[4:], uint32(nic.Index))
	err = netlink(syscall.RTM_NEWADDR, syscall.NLM_F_CREATE|syscall.NLM_F_EXCL, msg,
		attr(syscall.IFA_LOCAL, ip), attr(syscall.IFA_ADDRESS, ip))
	if err == nil {
		err = netlink(syscall.RTM_NEWLINK, 0, ifinfo(nic.Index, syscall.IFF_UP, syscall.IFF_UP))
	}
	if err != nil {
		return fmt.Errorf("setting up the network interface %s: %w", name, err)
	}
	return nil
}

// deleteLink removes an interface; that it is gone already is no error.
func deleteLink(name string) error {
	nic, err := net.InterfaceByName(name)
	if err != nil {
		return nil
	}
	err = netlink(syscall.RTM_DELLINK, 0, ifinfo(nic.Index, 0, 0))
	if err != nil && !errors.Is(err, syscall.ENODEV) {
		return fmt.Errorf("removing the network interface %s: %w", name, err)
	}
	return nil
}
