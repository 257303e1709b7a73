"""An HTTP proxy that knows CONNECT alone: for hosts whose only way out it is. Argument: address and port to listen on.
Prints `listening`, then each target."""
import socket
import sys
import threading


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    finally:
        for side in (source, sink):
            try:
                side.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def serve(client):
    head = b""
    while b"\r\n\r\n" not in head and (data := client.recv(4096)):
        head += data
    method, target = head.split(b" ")[:2]
    host, port = target.decode().rsplit(":", 1)
    if method != b"CONNECT":
        client.sendall(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n")
        client.close()
        return
    print("CONNECT", target.decode(), flush=True)
    upstream = socket.create_connection((host.strip("[]"), int(port)), 5)
    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    threading.Thread(target=pump, args=(upstream, client), daemon=True).start()
    pump(client, upstream)


listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("listening", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
