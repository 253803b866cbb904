"""The pubsub peer on py-libp2p. The contract is in ../../contract/pubsub.go."""

import argparse
import hashlib
import importlib.metadata
import json
import os
import sys

import multiaddr
import trio

from libp2p import generate_new_ed25519_identity, new_host
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub import floodsub, gossipsub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub, get_peer_and_seqno_msg_id
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.tools.anyio_service import background_trio_service

TOPIC = "interop"


class CountingGossipSub(gossipsub.GossipSub):
    """Counts the IDONTWANT that comes."""

    dontwant = 0

    async def handle_idontwant(self, msg, sender):
        self.dontwant += len(msg.messageIDs)
        await super().handle_idontwant(msg, sender)


def make_router(name):
    if name == "floodsub":
        return floodsub.FloodSub([floodsub.PROTOCOL_ID])
    return CountingGossipSub(
        # It has /meshsub/1.4.0 and /meshsub/2.0.0 too, which have no spec.
        [gossipsub.PROTOCOL_ID_V13, gossipsub.PROTOCOL_ID_V12, gossipsub.PROTOCOL_ID_V11, gossipsub.PROTOCOL_ID],
        6,
        5,
        12,
        heartbeat_interval=1,  # 120 by default
        # By default it drops what exceeds ten messages a second of a peer, in silence.
        spam_protection_enabled=False,
        adaptive_gossip_enabled=False,
        eclipse_protection_enabled=False,
    )


class Node:
    def __init__(self, args):
        self.args = args
        key = generate_new_ed25519_identity()
        self.listen = multiaddr.Multiaddr("/ip4/127.0.0.1/tcp/0")
        self.host = new_host(
            key_pair=key,
            sec_opt={"/noise": NoiseTransport(key, noise_privkey=new_x25519().private_key)},
            muxer_opt={"/yamux/1.0.0": Yamux},
            listen_addrs=[self.listen],
        )
        self.router = make_router(args.router)
        signs = args.sign == "yes"
        self.pubsub = Pubsub(
            self.host,
            self.router,
            strict_signing=signs,
            msg_id_constructor=get_peer_and_seqno_msg_id if signs else lambda m: hashlib.sha256(m.data).digest(),
        )
        self.seen = set()
        self.got, self.again, self.bad = {}, 0, 0

    def count(self, data):
        sender, n = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
        if data[8:] != bytes([(7 * sender + n) & 0xFF]) * (len(data) - 8):
            self.bad += 1
        elif (sender, n) in self.seen:
            self.again += 1
        else:
            self.seen.add((sender, n))
            self.got[sender] = self.got.get(sender, 0) + 1

    async def read(self, subscription):
        me = self.host.get_id().to_bytes()
        while True:
            m = await subscription.get()
            sender = int.from_bytes(m.data[:4], "big")
            if m.from_id != me and sender not in self.own:
                self.count(m.data)

    own = frozenset()

    async def publish(self, p):
        self.own |= {p["from"]}  # an unsigned message does not say that it is ours
        begin = trio.current_time()
        for n in range(p["count"]):
            await trio.sleep_until(begin + n * p["gap"] / 1e3)
            # Its queue holds 32 RPCs, and what exceeds that is dropped in silence.
            while max(map(len, self.pubsub.peer_queues.values()), default=0) > 8:
                await trio.sleep(0.005)
            fill = bytes([(7 * p["from"] + n) & 0xFF]) * (p["size"] - 8)
            data = p["from"].to_bytes(4, "big") + n.to_bytes(4, "big") + fill
            if self.args.sign == "yes":
                await self.pubsub.publish(TOPIC, data)
            else:
                # publish puts the author and a sequence number into unsigned messages
                # too, which StrictNoSign forbids.
                await self.pubsub.push_msg(self.host.get_id(), rpc_pb2.Message(data=data, topicIDs=[TOPIC]))

    async def carry_out(self, cmd):
        if "dial" in cmd:
            await self.host.connect(info_from_p2p_addr(multiaddr.Multiaddr(cmd["dial"])))
        if "publish" in cmd:
            await self.publish(cmd["publish"])
        peers = self.pubsub.peer_topics.get(TOPIC, ())
        return {
            "peers": len(peers),
            "mesh": len(self.router.mesh.get(TOPIC, ()) if self.args.router == "gossipsub" else peers),
            "got": self.got,
            "again": self.again,
            "bad": self.bad,
            "dontwant": getattr(self.router, "dontwant", -1),
        }

    async def serve(self):
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            try:
                with trio.fail_after(60):
                    answer = await self.carry_out(json.loads(line))
            except Exception as e:
                answer = {"err": f"{type(e).__name__}: {e}"}
            print(json.dumps(answer), flush=True)
        os._exit(0)  # closing a host with live connections can take long

    async def run(self):
        async with self.host.run([self.listen]), background_trio_service(self.pubsub):
            async with background_trio_service(self.router) if self.args.router == "gossipsub" else trio.open_nursery():
                await self.pubsub.wait_until_ready()
                subscription = await self.pubsub.subscribe(TOPIC)
                print(
                    json.dumps({
                        "addr": f"{self.host.get_transport_addrs()[0]}/p2p/{self.host.get_id()}",
                        "name": "py-libp2p",
                        "version": importlib.metadata.version("libp2p"),
                        "protocols": self.router.get_protocols(),
                    }),
                    flush=True,
                )
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.read, subscription)
                    nursery.start_soon(self.serve)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--router", default="gossipsub", choices=["floodsub", "gossipsub"])
    parser.add_argument("--sign", default="yes", choices=["yes", "no"])
    trio.run(Node(parser.parse_args()).run)
