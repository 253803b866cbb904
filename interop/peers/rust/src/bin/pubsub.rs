//! The pubsub peer on rust-libp2p's gossipsub. The contract is in
//! ../../../../contract/pubsub.go.
//!
//! For floodsub it is the same crate, told to speak that too. The crate
//! libp2p-floodsub reads one RPC of 2 KiB from a stream and sends each on a new
//! one, unsigned but with an author: nobody else does either.

use std::{
    collections::{HashMap, HashSet},
    io::BufRead,
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, Swarm, Transport,
    core::upgrade::Version,
    gossipsub::{self, IdentTopic, Message, MessageAuthenticity, MessageId, ValidationMode},
    identify, noise,
    identity::Keypair,
    swarm::{self, NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

const TOPIC: &str = "interop";

#[derive(NetworkBehaviour)]
struct Node {
    identify: identify::Behaviour, // without it others do not learn that this speaks gossipsub
    gossipsub: gossipsub::Behaviour,
}

/// version of a crate in the lock file.
fn version(of: &str) -> &'static str {
    let lock = include_str!("../../Cargo.lock");
    let at = lock.find(&format!("name = \"{of}\"\nversion = \"")).unwrap();
    lock[at..].split('"').nth(3).unwrap()
}

fn behaviour(key: &Keypair, floodsub: bool, sign: bool) -> gossipsub::Behaviour {
    let mut config = gossipsub::ConfigBuilder::default();
    config.max_transmit_size(1 << 20); // 64 KiB by default
    if sign {
        config.validation_mode(ValidationMode::Strict).message_id_fn(|m: &Message| {
            let mut id = m.source.unwrap().to_bytes();
            id.extend(m.sequence_number.unwrap().to_be_bytes());
            MessageId::from(id) // by default it is text: the author in base58, the number in decimal
        });
    } else {
        config.validation_mode(ValidationMode::Anonymous).message_id_fn(|m: &Message| MessageId::from(Sha256::digest(&m.data).to_vec()));
    }
    if floodsub {
        config.support_floodsub(); // beside its own protocols, which the others do not speak then
    }
    let author = if sign { MessageAuthenticity::Signed(key.clone()) } else { MessageAuthenticity::Anonymous };
    gossipsub::Behaviour::new(author, config.build().expect("config")).expect("behaviour")
}

#[derive(Default)]
struct Counter {
    seen: HashSet<(u32, u32)>,
    got: HashMap<u32, u32>,
    again: u32,
    bad: u32,
}

impl Counter {
    fn count(&mut self, data: &[u8]) {
        let word = |at: usize| data.get(at..at + 4).map(|b| u32::from_be_bytes(b.try_into().unwrap())).unwrap_or(0);
        let (from, n) = (word(0), word(4));
        if data.iter().skip(8).any(|b| *b != (7 * from + n) as u8) {
            self.bad += 1;
        } else if !self.seen.insert((from, n)) {
            self.again += 1;
        } else {
            *self.got.entry(from).or_default() += 1;
        }
    }
}

struct Publishing {
    from: u32,
    count: u32,
    size: usize,
    gap: f64,
    n: u32,
    begin: Instant,
}

impl Publishing {
    fn due(&self) -> Instant {
        self.begin + Duration::from_secs_f64(self.gap * self.n as f64 / 1e3)
    }

    fn next(&mut self) -> Vec<u8> {
        let mut data = vec![(7 * self.from + self.n) as u8; self.size];
        data[..4].copy_from_slice(&self.from.to_be_bytes());
        data[4..8].copy_from_slice(&self.n.to_be_bytes());
        self.n += 1;
        data
    }
}

async fn run(router: &str, sign: bool) {
    let key = Keypair::generate_ed25519();
    let transport = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&key).expect("noise key"))
        .multiplex(yamux::Config::default())
        .boxed();
    let node = Node {
        identify: identify::Behaviour::new(identify::Config::new("/interop/1.0.0".into(), key.public())),
        gossipsub: behaviour(&key, router == "floodsub", sign),
    };
    let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(600));
    let mut swarm = Swarm::new(transport, node, key.public().to_peer_id(), config);
    let topic = IdentTopic::new(TOPIC);
    swarm.behaviour_mut().gossipsub.subscribe(&topic).expect("subscribe");
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).expect("listen");

    let (line, mut commands) = mpsc::unbounded_channel::<Value>();
    std::thread::spawn(move || {
        for l in std::io::stdin().lock().lines() {
            let _ = line.send(serde_json::from_str(&l.unwrap()).expect("a command"));
        }
        std::process::exit(0);
    });
    let mut counter = Counter::default();
    let mut publishing: Option<Publishing> = None;
    let mut dialing = false;
    loop {
        let pause = publishing.as_ref().map(|p| p.due());
        let mut answer = None; // what the command has come to
        tokio::select! {
            cmd = commands.recv(), if publishing.is_none() && !dialing => {
                let cmd = cmd.expect("commands");
                if let Some(addr) = cmd["dial"].as_str() {
                    dialing = true;
                    if let Err(e) = swarm.dial(addr.parse::<Multiaddr>().unwrap()) {
                        answer = Some(Err(e.to_string()));
                    }
                } else if cmd["publish"].is_object() {
                    let p = &cmd["publish"];
                    publishing = Some(Publishing {
                        from: p["from"].as_u64().unwrap() as u32, count: p["count"].as_u64().unwrap() as u32,
                        size: p["size"].as_u64().unwrap() as usize, gap: p["gap"].as_f64().unwrap(), n: 0, begin: Instant::now(),
                    });
                } else {
                    answer = Some(Ok(()));
                }
            }
            _ = tokio::time::sleep_until(pause.unwrap_or_else(Instant::now).into()), if pause.is_some() => {
                let p = publishing.as_mut().unwrap();
                if p.n == p.count {
                    answer = Some(Ok(()));
                } else if let Err(e) = swarm.behaviour_mut().gossipsub.publish(topic.clone(), p.next()) {
                    answer = Some(Err(e.to_string()));
                }
            }
            event = swarm.select_next_some() => match event {
                SwarmEvent::NewListenAddr { address, .. } => println!("{}", json!({
                    "addr": format!("{address}/p2p/{}", swarm.local_peer_id()),
                    "name": "libp2p-gossipsub", "version": version("libp2p-gossipsub"),
                    "protocols": if router == "floodsub" { vec!["/floodsub/1.0.0"] } else { vec!["/meshsub/1.3.0", "/meshsub/1.2.0", "/meshsub/1.1.0", "/meshsub/1.0.0"] },
                })),
                SwarmEvent::Behaviour(NodeEvent::Gossipsub(gossipsub::Event::Message { message, .. })) => counter.count(&message.data),
                SwarmEvent::ConnectionEstablished { endpoint, .. } if endpoint.is_dialer() => answer = Some(Ok(())),
                SwarmEvent::OutgoingConnectionError { error, .. } => answer = Some(Err(format!("{error:?}"))),
                SwarmEvent::ConnectionClosed { cause: Some(cause), .. } => eprintln!("connection closed: {cause:?}"),
                _ => {}
            }
        }
        if let Some(result) = answer {
            (dialing, publishing) = (false, None);
            let gossipsub = &swarm.behaviour().gossipsub;
            let peers = gossipsub.all_peers().filter(|(_, topics)| topics.contains(&&topic.hash())).count();
            let mesh = if router == "floodsub" { peers } else { gossipsub.mesh_peers(&topic.hash()).count() };
            println!("{}", match result {
                Ok(()) => json!({"peers": peers, "mesh": mesh, "got": counter.got, "again": counter.again, "bad": counter.bad, "dontwant": -1}),
                Err(e) => json!({"err": e}),
            });
        }
    }
}

#[tokio::main]
async fn main() {
    let argv: Vec<String> = std::env::args().collect();
    let flag = |name: &str, default: &str| {
        argv.iter().position(|a| a == name).and_then(|i| argv.get(i + 1)).cloned().unwrap_or(default.into())
    };
    run(&flag("--router", "gossipsub"), flag("--sign", "yes") == "yes").await;
}
