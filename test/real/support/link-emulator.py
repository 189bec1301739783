"""Links between network namespaces that do to real packets what bad networks do.

A link is a pair of TUN devices, each moved into a namespace of its own: whatever the kernel sends into one
comes out of the other, later, or not at all. Orders come as lines of JSON on stdin, and each is answered by
a line on stdout once it is in force. When stdin ends, so does this, and the kernel takes the devices away.
The argument is the path of `ip`; or `--probe`, to see whether TUN devices are to be had.
"""

import collections
import fcntl
import json
import os
import random
import selectors
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
IPV4 = 4
TCP = 6
FIN_AND_PSH = 0x09
# What a slow link cannot send within this time is dropped, as a router does whose queue is full.
QUEUE_SECONDS = 4.0


class Device:
    def __init__(self, name):
        self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self.fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))

    def write(self, packet):
        try:
            os.write(self.fd, packet)
        except OSError:
            # Not up yet, or full: a packet is lost, as packets are.
            pass


class Link:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.delay = 0.0
        self.loss = 0.0
        self.down = False
        self.rate = 0
        self.segment = 0
        self.carried = 0
        self.lost = 0
        self.ways = []

    def set(self, delayMs=None, lossShare=None, isDown=None, bytesPerSecond=None, segmentBytes=None):
        if delayMs is not None:
            self.delay = delayMs / 1000
        if lossShare is not None:
            self.loss = lossShare
        if bytesPerSecond is not None:
            self.rate = bytesPerSecond
        if segmentBytes is not None:
            self.segment = segmentBytes
        if isDown is not None:
            self.down = isDown
            for way in self.ways:
                self.lost += len(way.queue) if isDown else 0
                way.queue.clear()


class Way:
    """One direction of a link. Never reorders."""

    def __init__(self, link, source, target):
        self.link = link
        self.source = source
        self.target = target
        self.queue = collections.deque()
        # When the last byte of what is queued has gone into the line.
        self.busy_until = 0.0
        self.last_arrival = 0.0
        link.ways.append(self)

    def take(self, packet, now):
        link = self.link
        backlog = self.busy_until - now
        if link.down or backlog > QUEUE_SECONDS or link.random.random() < link.loss:
            link.lost += 1
            return
        for piece in cut(packet, link.segment):
            if link.rate > 0:
                self.busy_until = max(self.busy_until, now) + len(piece) / link.rate
            departure = max(now, self.busy_until) if link.rate > 0 else now
            self.last_arrival = max(self.last_arrival, departure + link.delay)
            self.queue.append((self.last_arrival, piece))

    def deliver(self, now):
        while self.queue and self.queue[0][0] <= now:
            self.link.carried += 1
            self.target.write(self.queue.popleft()[1])


def cut(packet, size):
    """The same TCP bytes in segments of `size`; other packets, and all where it is 0, as they are."""
    if size == 0 or packet[9] != TCP:
        return [packet]
    ip_length = (packet[0] & 15) * 4
    head_length = ip_length + (packet[ip_length + 12] >> 4) * 4
    total = struct.unpack_from("!H", packet, 2)[0]
    payload = packet[head_length:total]
    if len(payload) <= size:
        return [packet]
    sequence = struct.unpack_from("!I", packet, ip_length + 4)[0]
    pieces = []
    for at in range(0, len(payload), size):
        piece = bytearray(packet[:head_length] + payload[at : at + size])
        struct.pack_into("!H", piece, 2, len(piece))
        struct.pack_into("!I", piece, ip_length + 4, (sequence + at) & 0xFFFFFFFF)
        if at + size < len(payload):
            piece[ip_length + 13] &= ~FIN_AND_PSH
        struct.pack_into("!H", piece, 10, 0)
        struct.pack_into("!H", piece, 10, checksum(piece[:ip_length]))
        struct.pack_into("!H", piece, ip_length + 16, 0)
        pseudo = bytes(piece[12:20]) + struct.pack("!BBH", 0, TCP, len(piece) - ip_length)
        struct.pack_into("!H", piece, ip_length + 16, checksum(pseudo + piece[ip_length:]))
        pieces.append(bytes(piece))
    return pieces


def checksum(data):
    """RFC 1071."""
    if len(data) % 2:
        data = bytes(data) + b"\0"
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Emulator:
    def __init__(self, ip):
        self.ip = ip
        self.selector = selectors.DefaultSelector()
        self.links = {}
        self.orders = b""
        os.set_blocking(0, False)
        self.selector.register(0, selectors.EVENT_READ, None)

    def run(self):
        while True:
            arrivals = [way.queue[0][0] for link in self.links.values() for way in link.ways if way.queue]
            timeout = max(0.0, min(arrivals) - time.monotonic()) if arrivals else None
            for key, _ in self.selector.select(timeout):
                if key.data is None:
                    if not self.read_orders():
                        return
                else:
                    self.read_packets(key.data)
            now = time.monotonic()
            for link in self.links.values():
                for way in link.ways:
                    way.deliver(now)

    def read_packets(self, way):
        # A few at a time, so that no link keeps the others waiting.
        for _ in range(64):
            try:
                packet = os.read(way.source.fd, 65536)
            except BlockingIOError:
                return
            except OSError:
                # Not up yet.
                return
            if packet[0] >> 4 == IPV4:
                way.take(packet, time.monotonic())

    def read_orders(self):
        data = os.read(0, 65536)
        if not data:
            return False
        *lines, self.orders = (self.orders + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            print(json.dumps(self.obey(**order)), flush=True)
        return True

    def obey(self, link, open=None, set=None):
        if open is not None:
            self.links[link] = self.open_link(**open)
        if set is not None:
            self.links[link].set(**set)
        return {"carried": self.links[link].carried, "lost": self.links[link].lost}

    def open_link(self, near, far, seed):
        """`near`, `far`: the device's name, and a process in the namespace that it goes to."""
        link = Link(seed)
        devices = []
        for name, pid in (near, far):
            devices.append(Device(name))
            subprocess.run([self.ip, "link", "set", "dev", name, "netns", str(pid)], check=True)
        for source, target in (devices, devices[::-1]):
            way = Way(link, source, target)
            self.selector.register(source.fd, selectors.EVENT_READ, way)
        return link


if __name__ == "__main__":
    if sys.argv[1:] == ["--probe"]:
        Device("probe")
    else:
        Emulator(sys.argv[1]).run()
