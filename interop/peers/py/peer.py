"""The interop peer on py-libp2p. The contract is in ../../README.md."""

import argparse
import hashlib
import importlib.metadata
import json
import os
import ssl
import sys
import time

import multiaddr
import trio

from libp2p import generate_new_ed25519_identity, new_host
from libp2p.crypto.serialization import deserialize_public_key
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519
from libp2p.host.ping import PingService
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.network.stream.exceptions import StreamEOF, StreamReset
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.insecure.transport import InsecureTransport
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.security.tls.transport import TLSTransport
from libp2p.stream_muxer.exceptions import MuxedStreamEOF
from libp2p.stream_muxer.mplex.mplex import Mplex
from libp2p.stream_muxer.mplex.mplex_stream import MplexStream
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream
from libp2p.transport.quic.exceptions import QUICStreamClosedError
from libp2p.transport.quic.stream import QUICStream
from libp2p.utils.varint import decode_varint_with_size

ECHO = "/interop/echo/1.0.0"
HALFCLOSE = "/interop/halfclose/1.0.0"
RESET = "/interop/reset/1.0.0"
RESETME = "/interop/resetme/1.0.0"
RESETCOUNT = "/interop/resetcount/1.0.0"
PERF = "/perf/1.0.0"
OWN = "-"  # the transport brings it
PERF_BYTES = 64 << 20
CHECK_TIMEOUT = 30
CHUNK = 64 << 10

WIRE = {
    "noise": "/noise",
    "tls": "/tls/1.0.0",
    "plaintext": "/plaintext/2.0.0",
    "yamux": "/yamux/1.0.0",
    "mplex": "/mplex/6.7.0",
}


def make_host(args, listen=None):
    """A host that offers exactly one transport, security and muxer."""
    key = generate_new_ed25519_identity()
    security = {
        "noise": lambda: NoiseTransport(key, noise_privkey=new_x25519().private_key),
        "tls": lambda: TLSTransport(key),
        "plaintext": lambda: InsecureTransport(key),
    }
    options = {}
    if args.security != OWN:
        options["sec_opt"] = {WIRE[args.security]: security[args.security]()}
        options["muxer_opt"] = {WIRE[args.muxer]: {"yamux": Yamux, "mplex": Mplex}[args.muxer]}
    if args.psk:
        with open(args.psk) as f:
            options["psk"] = f.read().split()[-1]
    if args.transport == "wss":
        options["tls_server_config"] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        options["tls_server_config"].load_cert_chain(args.cert)
        options["tls_client_config"] = ssl.create_default_context(cafile=args.cert)
    if listen is None:
        listen = [multiaddr.Multiaddr(args.to)]  # it makes the transports that these addresses need
    return new_host(key_pair=key, listen_addrs=listen, **options)


async def read_some(stream, n=CHUNK):
    """Some bytes, b"" at a clean end; a reset raises StreamReset."""
    muxed = stream.muxed_stream
    try:
        return await stream.read(n)
    except StreamReset:
        # What py-libp2p says of a QUIC stream as well whose both sides have ended.
        if isinstance(muxed, QUICStream) and not muxed.is_reset():
            return await left(muxed, n)
        raise
    except StreamEOF:
        # py-libp2p says EOF as well when the remote has reset a stream: its
        # yamux forgets the stream first, its mplex ends the data first. Both
        # leave a mark, mplex a moment later.
        if isinstance(muxed, MplexStream):
            await trio.sleep(0.01)
            reset = muxed.event_reset.is_set()
        elif isinstance(muxed, YamuxStream):
            reset = muxed.reset_received
        else:
            reset = muxed.is_reset()
        if reset:
            raise StreamReset("reset by the remote") from None
        return await left(muxed, n) if isinstance(muxed, QUICStream) else b""


async def left(muxed, n):
    """What a QUIC stream has though its read says that it has ended: py-libp2p looks
    for data, waits for a lock, and looks for the end. It leaves what came meanwhile, with
    the end, to the next read."""
    try:
        return await muxed.read(n)
    except (MuxedStreamEOF, QUICStreamClosedError):
        return b""


async def chunks(stream):
    """The bytes of a stream until its clean end."""
    while data := await read_some(stream):
        yield data


async def exactly(stream, n):
    data = b""
    while len(data) < n:
        some = await read_some(stream, n - len(data))
        if not some:
            raise EOFError("EOF too early")
        data += some
    return data


async def write_zeros(stream, n):
    zeros = bytes(CHUNK)
    while n > 0:
        await stream.write(zeros[:n])
        n -= min(n, CHUNK)


# ---------------------------------------------------------------- listener

resets = 0


async def serve_echo(s):
    async for data in chunks(s):
        await s.write(data)


async def serve_halfclose(s):
    digest = hashlib.sha256()
    async for data in chunks(s):
        digest.update(data)
    await s.write(digest.digest())


async def serve_reset(s):
    await exactly(s, 1)
    await s.reset()


async def serve_resetme(s):
    global resets
    await s.write(await exactly(s, 1))
    try:
        await read_some(s, 1)
    except StreamReset:
        resets += 1


async def serve_resetcount(s):
    await s.write(str(resets).encode())


async def serve_perf(s):
    want = int.from_bytes(await exactly(s, 8), "big")
    async for _ in chunks(s):
        pass
    await write_zeros(s, want)


HANDLERS = {
    ECHO: serve_echo,
    HALFCLOSE: serve_halfclose,
    RESET: serve_reset,
    RESETME: serve_resetme,
    RESETCOUNT: serve_resetcount,
    PERF: serve_perf,
}


def handler(protocol):
    async def handle(s):
        try:
            await HANDLERS[protocol](s)
            if protocol != RESET:
                await s.close()
        except Exception as e:
            print(f"{protocol}: {type(e).__name__}: {e}", file=sys.stderr)
            await s.reset()

    return handle


async def listen(args):
    addr = multiaddr.Multiaddr(args.listen)
    host = make_host(args, [addr])
    for protocol in HANDLERS:
        host.set_stream_handler(protocol, handler(protocol))
    async with host.run([addr]):
        full = f"{host.get_transport_addrs()[0]}/p2p/{host.get_id()}"
        print(json.dumps({"addr": full}), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        os._exit(0)  # closing a host with live connections can take long


# ---------------------------------------------------------------- dialer


async def exchange(s, data, *sizes, echo=False):
    """Write data in pieces of these sizes, cycling, close the write side, and
    meanwhile read to the end."""
    got = bytearray()
    # A stream of py-libp2p's mplex has one lock, which a read holds while it
    # waits: nobody can write then. So there we read nothing before we have
    # written, and an echo piece by piece.
    half_duplex = isinstance(s.muxed_stream, MplexStream)

    async def read():
        async for chunk in chunks(s):
            got.extend(chunk)

    async with trio.open_nursery() as nursery:
        if not half_duplex:
            nursery.start_soon(read)
        at = i = 0
        while at < len(data):
            piece = data[at : at + sizes[i % len(sizes)]]
            await s.write(piece)
            at, i = at + len(piece), i + 1
            if half_duplex and echo:
                got.extend(await exactly(s, len(piece)))
        await s.close_write()
        if half_duplex:
            await read()
    return bytes(got)


class Dialer:
    def __init__(self, args, host):
        self.args, self.host, self.conn = args, host, None
        self.info = info_from_p2p_addr(multiaddr.Multiaddr(args.to))

    async def open(self, protocol):
        return await self.host.new_stream(self.info.peer_id, [protocol])

    async def connect(self):
        await self.host.connect(self.info)
        conn = self.host.get_network().connections[self.info.peer_id][0]
        self.conn = conn
        if self.args.security == OWN:
            return self.args.transport
        used = f"{conn.get_negotiated_security_protocol()} {conn.get_negotiated_muxer_protocol()}"
        if used != f"{WIRE[self.args.security]} {WIRE[self.args.muxer]}":
            raise RuntimeError(f"the connection uses {used}")
        return f"{self.args.transport} {used}"

    async def identify(self):
        # The host identifies by itself, but shows little of it.
        s = await self.open(IDENTIFY)
        raw = b"".join([c async for c in chunks(s)])
        await s.close()
        msg, n = Identify(), 0
        while n < len(raw):  # "one or more messages, to be merged"
            size, head = decode_varint_with_size(raw[n:])
            msg.MergeFromString(raw[n + head : n + head + size])
            n += head + size
        observed = str(multiaddr.Multiaddr(msg.observed_addr)) if msg.observed_addr else ""
        peer = ID.from_pubkey(deserialize_public_key(msg.public_key))
        if not msg.agent_version:
            raise RuntimeError("no agent version")
        if not observed.startswith("/ip4/127.0.0.1/"):
            raise RuntimeError(f"observed address {observed!r}")
        if peer != self.info.peer_id:
            raise RuntimeError(f"public key of {peer}")
        for p in [ECHO, PERF, "/ipfs/ping/1.0.0", "/ipfs/id/1.0.0"]:
            if p not in msg.protocols:
                raise RuntimeError(f"protocols lack {p}: {list(msg.protocols)}")
        return f"{msg.agent_version}, {len(msg.protocols)} protocols, sees us at {observed}"

    async def ping(self):
        rtts = await PingService(self.host).ping(self.info.peer_id, 5)
        return f"{rtts} ms"

    async def echo(self):
        data = os.urandom(1 << 20)
        s = await self.open(ECHO)
        got = await exchange(s, data, 1, 7, 1000, 4093, 65537, echo=True)
        if got != data:
            raise RuntimeError(f"{len(got)} bytes came back and differ")
        return "1 MiB"

    async def streams(self):
        streams = {}

        async def one(i):
            streams[i] = s = await self.open(ECHO)
            data = bytes([i]) * 1024
            await s.write(data)
            if await exactly(s, 1024) != data:
                raise RuntimeError("echo differs")

        async with trio.open_nursery() as nursery:
            for i in range(100):
                nursery.start_soon(one, i)
        # No stream closes before all have had their echo.
        async with trio.open_nursery() as nursery:
            for s in streams.values():
                nursery.start_soon(exchange, s, b"")
        return "100 at once"

    async def half_close(self, data):
        got = await exchange(await self.open(HALFCLOSE), data, 10_000)
        if got != hashlib.sha256(data).digest():
            raise RuntimeError(f"{len(got)} bytes came back, not the SHA-256")

    async def halfclose(self):
        await self.half_close((b"plexus " * 14286)[:100_000])
        return "100 kB, SHA-256 back"

    async def request(self):
        for _ in range(20):
            await self.half_close(b"plexus")
        return "20 short requests"

    async def reset(self):
        s = await self.open(RESET)
        await s.write(b"1")
        try:
            got = await read_some(s, 1)
            raise RuntimeError(f"after the listener's reset, read says {got!r}")
        except StreamReset:
            pass
        ours = await self.open(RESETME)
        await ours.write(b"1")
        await exactly(ours, 1)
        await ours.reset()
        end = time.monotonic() + 5
        while time.monotonic() < end:
            if await exchange(await self.open(RESETCOUNT), b"") != b"0":
                return "seen both ways"
            await trio.sleep(0.02)
        raise RuntimeError("seen here, but not there: the listener counts no reset within 5 s")

    async def perf(self):
        async def measure(up, down):
            s = await self.open(PERF)
            start = time.monotonic()
            await s.write(down.to_bytes(8, "big"))
            await write_zeros(s, up)
            await s.close_write()
            n = 0
            async for data in chunks(s):
                n += len(data)
            if n != down:
                raise RuntimeError(f"{n} bytes came back, not {down}")
            return (up + down) / 1e6 / (time.monotonic() - start)

        return f"up {await measure(PERF_BYTES, 0):.0f} down {await measure(0, PERF_BYTES):.0f} MB/s"

    async def wrongpeer(self):
        nobody = ID.from_pubkey(generate_new_ed25519_identity().public_key)
        addr = self.args.to.split("/p2p/")[0]
        host = make_host(self.args)
        async with host.run([]):
            try:
                await host.connect(info_from_p2p_addr(multiaddr.Multiaddr(f"{addr}/p2p/{nobody}")))
            except Exception as e:
                return f"refused: {causes(e)}"
        raise RuntimeError("connected to a peer that is not there")


def causes(e):
    """One line for an exception, its causes, and the members of a group."""
    if isinstance(e, BaseExceptionGroup):
        return "; ".join(causes(x) for x in e.exceptions[:3])
    text = f"{type(e).__name__}: {e}"
    return f"{text} <- {causes(e.__cause__)}" if e.__cause__ else text


async def dial(args):
    all_ok = True
    host = make_host(args)
    async with host.run([]):
        d = Dialer(args, host)
        for check in args.checks.split(","):
            start = time.monotonic()
            try:
                if check not in CHECKS:
                    raise RuntimeError("unknown check")
                if d.conn is None and check not in ("connect", "wrongpeer"):
                    raise RuntimeError("not run: no connection")
                with trio.fail_after(CHECK_TIMEOUT):
                    ok, detail = True, await getattr(d, check)()
            except Exception as e:
                ok, detail = False, causes(e)
            all_ok = all_ok and ok
            ms = round((time.monotonic() - start) * 1e3, 3)
            print(json.dumps({"check": check, "ok": ok, "detail": detail, "ms": ms}), flush=True)
        os._exit(0 if all_ok else 1)


# Its WebTransport is left out: it drops what comes faster than it is read.
TRANSPORTS = ["tcp", "ws", "wss", "quic"]
CHECKS = ["connect", "request", "identify", "ping", "echo", "streams", "halfclose", "reset", "perf", "wrongpeer"]

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["features", "listen", "dial"])
    parser.add_argument("--listen", default="/ip4/127.0.0.1/tcp/0")
    parser.add_argument("--to")
    parser.add_argument("--transport", default="tcp", choices=TRANSPORTS)
    parser.add_argument("--security", default="noise", choices=["noise", "tls", "plaintext", OWN])
    parser.add_argument("--muxer", default="yamux", choices=["yamux", "mplex", OWN])
    parser.add_argument("--cert")
    parser.add_argument("--psk", help="a file with the key of a private network")
    parser.add_argument("--checks", default=",".join(CHECKS))
    args = parser.parse_args()
    if args.to:  # it knows /tls/ws, but not when /p2p follows
        args.to = args.to.replace("/tls/ws/", "/wss/")
    if args.verb == "features":
        print(json.dumps({
            "name": "py-libp2p",
            "version": importlib.metadata.version("libp2p"),
            "transport": TRANSPORTS,
            "security": ["noise", "tls", "plaintext"],
            "muxer": ["yamux", "mplex"],
        }))
    else:
        trio.run({"listen": listen, "dial": dial}[args.verb], args)
