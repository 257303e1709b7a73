"""A wire that mistreats UDP: two TAP devices, and between them a program that loses, delays, reorders and duplicates the
Ethernet frames of UDP datagrams; all others pass at once. For kernels without sch_netem. Every decision is drawn from the
seed. Arguments: the devices, the seed, a file.

At SIGHUP it reads the file, one JSON object: `loss`, `reorder` and `duplicate` (0 to 1), `delayMs`, `jitterMs`, `reorderMs`
(how much longer a frame is held that others shall overtake), `round` (printed with what happened so far, as JSON).
"""
import fcntl
import heapq
import json
import os
import random
import select
import signal
import struct
import sys
import time

IFF_TAP, IFF_NO_PI, TUNSETIFF = 0x0002, 0x1000, 0x400454CA
UDP = 17
MAX_HELD = 20_000


def open_tap(name):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return fd


def is_udp(frame):
    kind = frame[12:14]
    if kind == b"\x08\x00":
        return frame[23] == UDP
    return kind == b"\x86\xdd" and frame[20] == UDP


class Wire:
    def __init__(self, ends, seed):
        self.other = {ends[0]: ends[1], ends[1]: ends[0]}
        self.random = random.Random(seed)
        self.settings = dict(loss=0, reorder=0, duplicate=0, delayMs=0, jitterMs=0, reorderMs=10, round=0)
        self.counts = dict(seen=0, lost=0, reordered=0, duplicated=0, overflowed=0)
        self.held = []
        self.order = 0

    def take(self, fd, now):
        for _ in range(64):
            try:
                frame = os.read(fd, 65536)
            except BlockingIOError:
                return
            if is_udp(frame):
                self.mistreat(self.other[fd], frame, now)
            else:
                self.write(self.other[fd], frame)

    def mistreat(self, to, frame, now):
        settings, counts, draw = self.settings, self.counts, self.random.random
        counts["seen"] += 1
        if draw() < settings["loss"]:
            counts["lost"] += 1
            return
        copies = 1
        if draw() < settings["duplicate"]:
            counts["duplicated"] += 1
            copies = 2
        for _ in range(copies):
            wait = settings["delayMs"] + draw() * settings["jitterMs"]
            if draw() < settings["reorder"]:
                counts["reordered"] += 1
                wait += settings["reorderMs"]
            self.hold(to, frame, now + wait / 1000)

    def hold(self, to, frame, at):
        if len(self.held) >= MAX_HELD:
            self.counts["overflowed"] += 1
            return
        self.order += 1
        heapq.heappush(self.held, (at, self.order, to, frame))

    def release(self, now):
        while self.held and self.held[0][0] <= now:
            _, _, to, frame = heapq.heappop(self.held)
            self.write(to, frame)

    def write(self, to, frame):
        try:
            os.write(to, frame)
        except OSError:
            pass  # the device is not up yet

    def next_in(self, now):
        return max(0, self.held[0][0] - now) if self.held else None

    def read_settings(self, path):
        with open(path) as file:
            self.settings.update(json.load(file))
        print(json.dumps({**self.counts, "round": self.settings["round"]}), flush=True)


def main():
    first, second, seed, path = sys.argv[1:5]
    ends = [open_tap(first), open_tap(second)]
    wire = Wire(ends, int(seed))
    signal.signal(signal.SIGHUP, lambda *_: wire.read_settings(path))
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select(ends, [], [], wire.next_in(time.monotonic()))
        now = time.monotonic()
        wire.release(now)
        for end in readable:
            wire.take(end, now)


main()
