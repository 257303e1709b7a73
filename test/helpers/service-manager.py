"""A service manager as small as it can be, for tests: starts one program, speaks sd_notify(3) with it, and keeps the
descriptors that it is given while the program restarts, as systemd does with FileDescriptorStoreMax=. What ends without having
been told is started again after a second.

    service-manager.py SOCKET ORDERS WATCHDOG_USEC PROGRAM [ARGUMENT]...

Makes the FIFO ORDERS and reads a line each from it: `restart` (SIGTERM first), `kill` (SIGKILL first), `stop`. Writes what happens to
stdout: `notify KEY=VALUE`, `kept NAME`, `started PID`, `ended STATUS`.
"""
import array
import fcntl
import os
import select
import signal
import socket
import sys
import time

SOCKET, ORDERS, WATCHDOG_USEC, PROGRAM = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
kept = {}


def say(line):
    # In one write: the program writes to the same pipe, and print() may write the line's end by itself.
    os.write(1, f"{line}\n".encode())


def start():
    pid = os.fork()
    if pid:
        say(f"started {pid}")
        return pid
    environment = dict(os.environ, NOTIFY_SOCKET=SOCKET, WATCHDOG_USEC=WATCHDOG_USEC)
    if kept:
        for index, fd in enumerate(kept.values()):
            os.dup2(fd, 3 + index, inheritable=True)
        names = ":".join(kept)
        environment.update(LISTEN_FDS=str(len(kept)), LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=names)
    os.execvpe(PROGRAM[0], PROGRAM, environment)


def receive(notify):
    size = socket.CMSG_SPACE(4)
    message, controls, _, _ = notify.recvmsg(4096, size)
    fds = array.array("i")
    for level, kind, data in controls:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[:4])
    fields = dict(line.split("=", 1) for line in message.decode().splitlines())
    if "FDSTORE" in fields:
        for fd in fds:
            # Away from the low numbers, which the program's start puts in order.
            high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100)
            os.close(fd)
            kept[fields["FDNAME"]] = high
            say(f"kept {fields['FDNAME']}")
        return
    if "FDSTOREREMOVE" in fields:
        os.close(kept.pop(fields["FDNAME"]))
    for key, value in fields.items():
        say(f"notify {key}={value}")


def ended(pid):
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        say(f"ended {os.waitstatus_to_exitcode(status)}")
    return done != 0


def end(pid, notify, how):
    os.kill(pid, how)
    while not ended(pid):
        if select.select([notify], [], [], 0.01)[0]:
            receive(notify)


def main():
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind("\0" + SOCKET[1:] if SOCKET.startswith("@") else SOCKET)
    os.mkfifo(ORDERS)
    orders = os.fdopen(os.open(ORDERS, os.O_RDWR), "r")  # also for writing, so that it never ends
    pid, start_at = start(), 0
    while True:
        for ready in select.select([notify, orders], [], [], LOOK_S)[0]:
            if ready is notify:
                receive(notify)
                continue
            order = orders.readline().strip()
            if pid is not None:
                end(pid, notify, signal.SIGKILL if order == "kill" else signal.SIGTERM)
            if order == "stop":
                return
            pid = start()
        if pid is not None and ended(pid):
            pid, start_at = None, time.monotonic() + RESTART_S
        if pid is None and time.monotonic() >= start_at:
            pid = start()


LOOK_S = 0.1
RESTART_S = 1  # RestartSec= of the units

main()
