//! The interop peer on rust-libp2p. The contract is in ../../README.md.
//!
//! `streams.rs` has the part that a rust-libp2p application writes as a
//! NetworkBehaviour: serving and opening streams. This file has the contract.

mod streams;

use std::{
    future::Future,
    io::{Error, ErrorKind, Read, Result},
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt, future};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, Transport,
    core::{muxing::StreamMuxerBox, transport::Boxed, upgrade::Version},
    identify, identity::Keypair, multiaddr::Protocol, noise, ping, plaintext,
    pnet::{PnetConfig, PreSharedKey},
    quic,
    swarm::{self, NetworkBehaviour, SwarmEvent},
    tcp, tls, yamux,
};
use libp2p_webrtc::tokio as webrtc;
use libp2p_websocket as websocket;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

const ECHO: &str = "/interop/echo/1.0.0";
const HALFCLOSE: &str = "/interop/halfclose/1.0.0";
const RESET: &str = "/interop/reset/1.0.0";
const RESETME: &str = "/interop/resetme/1.0.0";
const RESETCOUNT: &str = "/interop/resetcount/1.0.0";
const PERF: &str = "/perf/1.0.0";
const PERF_BYTES: u64 = 64 << 20;
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);
const CHECKS: &str = "connect,request,identify,ping,echo,streams,halfclose,reset,perf,wrongpeer";

fn err(text: impl Into<String>) -> Error {
    Error::other(text.into())
}

// -------------------------------------------------------------------- node

#[derive(NetworkBehaviour)]
struct Node {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    streams: streams::Behaviour,
}

/// The transport offers exactly one security and one muxer. rust-libp2p does not
/// tell what a connection uses, so this is how the connect check knows.
fn transport(key: &Keypair, args: &Args) -> Boxed<(PeerId, StreamMuxerBox)> {
    let tcp = || tcp::tokio::Transport::new(tcp::Config::default());
    match args.transport.as_str() {
        "tcp" if !args.psk.is_empty() => {
            let psk: PreSharedKey = std::fs::read_to_string(&args.psk).expect("key file").parse().expect("key");
            pipe(tcp().and_then(move |socket, _| PnetConfig::new(psk).handshake(socket)), key, args)
        }
        "tcp" => pipe(tcp(), key, args),
        "ws" => pipe(websocket::Config::new(tcp()), key, args),
        "wss" => {
            let mut ws = websocket::Config::new(tcp());
            ws.set_tls_config(wss(&args.cert));
            pipe(ws, key, args)
        }
        "quic" => quic::tokio::Transport::new(quic::Config::new(key))
            .map(|(peer, conn), _| (peer, StreamMuxerBox::new(conn)))
            .boxed(),
        "webrtc-direct" => {
            let certificate = webrtc::Certificate::generate(&mut rand::rng()).expect("certificate");
            webrtc::Transport::new(key.clone(), certificate)
                .map(|(peer, conn), _| (peer, StreamMuxerBox::new(conn)))
                .boxed()
        }
        t => panic!("no transport {t}"),
    }
}

/// pipe puts security and muxer upon a transport that has none.
fn pipe<T>(transport: T, key: &Keypair, args: &Args) -> Boxed<(PeerId, StreamMuxerBox)>
where
    T: Transport<Output: AsyncRead + AsyncWrite + Unpin + Send + 'static, Error: Send + Sync> + Send + Unpin + 'static,
    T::Dial: Send,
    T::ListenerUpgrade: Send,
{
    let bare = transport.upgrade(Version::V1Lazy);
    macro_rules! over {
        ($security:expr) => {
            match args.muxer.as_str() {
                "yamux" => bare.authenticate($security).multiplex(yamux::Config::default()).boxed(),
                "mplex" => bare.authenticate($security).multiplex(libp2p_mplex::Config::default()).boxed(),
                m => panic!("no muxer {m}"),
            }
        };
    }
    match args.security.as_str() {
        "noise" => over!(noise::Config::new(key).expect("noise key")),
        "tls" => over!(tls::Config::new(key).expect("TLS certificate")),
        "plaintext" => over!(plaintext::Config::new(key)),
        s => panic!("no security {s}"),
    }
}

/// wss has the certificate, and trust in it.
fn wss(file: &str) -> websocket::tls::Config {
    let der = CertificateDer::from_pem_file(file).expect("certificate").to_vec();
    let key = PrivateKeyDer::from_pem_file(file).expect("key of the certificate").secret_der().to_vec();
    let certificate = websocket::tls::Certificate::new(der);
    let mut tls = websocket::tls::Config::builder();
    tls.add_trust(&certificate).expect("certificate");
    tls.server(websocket::tls::PrivateKey::new(key), [certificate]).expect("certificate and key");
    tls.finish()
}

fn version() -> &'static str {
    let (_, rest) = include_str!("../Cargo.lock").split_once("name = \"libp2p\"\nversion = \"").unwrap();
    rest.split('"').next().unwrap()
}

fn node(args: &Args) -> (Swarm<Node>, streams::Opener) {
    let key = Keypair::generate_ed25519();
    let (opener, streams) = streams::behaviour(
        [ECHO, HALFCLOSE, RESET, RESETME, RESETCOUNT, PERF].map(StreamProtocol::new).to_vec(),
        |stream, protocol| { tokio::spawn(serve(stream, protocol)); },
    );
    let node = Node {
        identify: identify::Behaviour::new(
            identify::Config::new("/interop/1.0.0".into(), key.public())
                .with_agent_version(format!("rust-libp2p/{}", version())),
        ),
        // It pings as long as the connection lives, on one stream. The short
        // interval also gives the ping check its five rounds, and wakes rust's
        // mplex, which keeps a reset to itself until something else happens.
        ping: ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_millis(100))),
        streams,
    };
    let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(600));
    (Swarm::new(transport(&key, args), node, key.public().to_peer_id(), config), opener)
}

// ---------------------------------------------------------------- listener

static RESETS: AtomicUsize = AtomicUsize::new(0);

async fn serve(mut stream: Stream, protocol: StreamProtocol) {
    // Dropping a stream that was not closed resets it.
    if let Err(e) = handle(&mut stream, protocol.as_ref()).await {
        eprintln!("{protocol}: {e}");
    }
}

async fn handle(s: &mut Stream, protocol: &str) -> Result<()> {
    match protocol {
        ECHO => {
            let mut buf = vec![0; 64 << 10];
            loop {
                match s.read(&mut buf).await? {
                    0 => break,
                    n => send(s, &buf[..n]).await?,
                }
            }
        }
        HALFCLOSE => {
            let mut data = vec![];
            s.read_to_end(&mut data).await?;
            s.write_all(&Sha256::digest(&data)).await?;
        }
        RESET => {
            s.read_exact(&mut [0]).await?;
            return Ok(());
        }
        RESETME => {
            let mut b = [0];
            s.read_exact(&mut b).await?;
            send(s, &b).await?;
            if was_reset(s).await {
                RESETS.fetch_add(1, Ordering::Relaxed);
            }
            return Ok(());
        }
        RESETCOUNT => s.write_all(RESETS.load(Ordering::Relaxed).to_string().as_bytes()).await?,
        PERF => {
            let mut head = [0; 8];
            s.read_exact(&mut head).await?;
            drain(s).await?;
            write_zeros(s, u64::from_be_bytes(head)).await?;
        }
        _ => unreachable!("not in the list"),
    }
    s.close().await
}

/// was_reset reads to the end, and tells whether that was a reset.
///
/// rust-yamux says EOF to a reader in both cases. But after a clean end of the
/// other side we may still write, and after a reset we may not.
async fn was_reset(s: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> bool {
    match drain(s).await {
        Err(_) => true,
        Ok(_) => s.write_all(&[0]).await.is_err(),
    }
}

async fn drain(s: &mut (impl AsyncRead + Unpin)) -> Result<u64> {
    let (mut buf, mut n) = (vec![0; 64 << 10], 0);
    loop {
        match s.read(&mut buf).await? {
            0 => return Ok(n),
            k => n += k as u64,
        }
    }
}

/// send writes and flushes. libp2p-webrtc keeps what is not flushed, and then sends it
/// together with what follows: in a message that may be longer than it allows itself.
async fn send(s: &mut (impl AsyncWrite + Unpin), data: &[u8]) -> Result<()> {
    s.write_all(data).await?;
    s.flush().await
}

async fn write_zeros(s: &mut (impl AsyncWrite + Unpin), mut n: u64) -> Result<()> {
    let zeros = vec![0; 64 << 10];
    while n > 0 {
        let k = n.min(zeros.len() as u64);
        send(s, &zeros[..k as usize]).await?;
        n -= k;
    }
    Ok(())
}

async fn listen(args: &Args) -> Result<()> {
    let (mut swarm, _opener) = node(args);
    swarm.listen_on(args.listen.parse().map_err(Error::other)?).map_err(Error::other)?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => {
                println!("{}", json!({"addr": format!("{address}/p2p/{}", swarm.local_peer_id())}));
                std::thread::spawn(|| {
                    let _ = std::io::stdin().read_to_end(&mut vec![]);
                    std::process::exit(0);
                });
            }
            SwarmEvent::IncomingConnectionError { error, .. } => eprintln!("inbound connection: {error:?}"),
            SwarmEvent::ConnectionClosed { cause: Some(cause), .. } => eprintln!("connection closed: {cause:?}"),
            _ => {}
        }
    }
}

// ------------------------------------------------------------------ dialer

struct Dialer {
    args: Args,
    conn: Option<Connected>,
}

struct Connected {
    opener: streams::Opener,
    identified: mpsc::UnboundedReceiver<Result<identify::Info>>,
    pinged: mpsc::UnboundedReceiver<Result<Duration>>,
}

/// connect dials, and then drives the swarm in a task of its own.
async fn connect(args: &Args, to: Multiaddr) -> Result<Connected> {
    let (mut swarm, opener) = node(args);
    if args.transport == "webrtc-direct" {
        // rust-libp2p dials WebRTC from the socket of a listener only.
        swarm.listen_on("/ip4/127.0.0.1/udp/0/webrtc-direct".parse().unwrap()).map_err(Error::other)?;
    }
    swarm.dial(to).map_err(Error::other)?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { .. } => break,
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(err(format!("{error:?}"))),
            _ => {}
        }
    }
    let (id, identified) = mpsc::unbounded_channel();
    let (rtt, pinged) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let _ = match swarm.select_next_some().await {
                SwarmEvent::Behaviour(NodeEvent::Identify(identify::Event::Received { info, .. })) => id.send(Ok(info)).is_ok(),
                SwarmEvent::Behaviour(NodeEvent::Identify(identify::Event::Error { error, .. })) => id.send(Err(err(error.to_string()))).is_ok(),
                SwarmEvent::Behaviour(NodeEvent::Ping(e)) => rtt.send(e.result.map_err(|e| err(e.to_string()))).is_ok(),
                SwarmEvent::ConnectionClosed { cause, .. } => { eprintln!("connection closed: {cause:?}"); true }
                _ => true,
            };
        }
    });
    Ok(Connected { opener, identified, pinged })
}

/// exchange writes data in pieces of the given sizes, cycling, closes the write
/// side, and meanwhile reads to EOF.
async fn exchange(s: Stream, data: &[u8], sizes: &[usize]) -> Result<Vec<u8>> {
    let (mut read, mut write) = s.split();
    let writing = async {
        let (mut rest, mut sizes) = (data, sizes.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            send(&mut write, piece).await?;
            rest = after;
        }
        write.close().await
    };
    let mut got = vec![];
    future::try_join(writing, read.read_to_end(&mut got)).await?;
    Ok(got)
}

impl Dialer {
    async fn open(&self, protocol: &'static str) -> Result<Stream> {
        self.conn.as_ref().unwrap().opener.open(StreamProtocol::new(protocol)).await
    }

    async fn check(&mut self, name: &str) -> Result<String> {
        match name {
            "connect" => {
                self.conn = Some(connect(&self.args, self.args.to.parse().map_err(Error::other)?).await?);
                Ok(format!("{} {} {}, nothing else offered", self.args.transport, self.args.security, self.args.muxer))
            }
            "wrongpeer" => {
                let mut to: Multiaddr = self.args.to.parse().map_err(Error::other)?;
                to.pop();
                match connect(&self.args, to.with(Protocol::P2p(Keypair::generate_ed25519().public().to_peer_id()))).await {
                    Ok(_) => Err(err("connected to a peer that is not there")),
                    Err(e) => Ok(format!("refused: {e}")),
                }
            }
            _ if self.conn.is_none() => Err(err("not run: no connection")),
            "identify" => self.identify().await,
            "ping" => {
                let mut rtts = vec![];
                while rtts.len() < 5 {
                    rtts.push(self.conn.as_mut().unwrap().pinged.recv().await.ok_or(err("swarm ended"))??);
                }
                Ok(format!("{rtts:?}"))
            }
            "echo" => {
                let data: Vec<u8> = (0..1u32 << 20).map(|i| (i.wrapping_mul(2654435761) >> 24) as u8).collect();
                let got = exchange(self.open(ECHO).await?, &data, &[1, 7, 1000, 4093, 65537]).await?;
                if got != data {
                    return Err(err(format!("{} bytes came back and differ", got.len())));
                }
                Ok("1 MiB".into())
            }
            "streams" => {
                let all = future::try_join_all((0..100u8).map(|i| self.echo_once(i))).await?;
                // No stream closes before all have had their echo.
                future::try_join_all(all.into_iter().map(|s| exchange(s, &[], &[]))).await?;
                Ok("100 at once".into())
            }
            "halfclose" => {
                let data: Vec<u8> = b"plexus ".iter().copied().cycle().take(100_000).collect();
                self.half_close(&data).await?;
                Ok("100 kB, SHA-256 back".into())
            }
            "request" => {
                for _ in 0..20 {
                    self.half_close(b"plexus").await?;
                }
                Ok("20 short requests".into())
            }
            "reset" => self.reset().await,
            "perf" => {
                let up = self.perf(PERF_BYTES, 0).await.map_err(|e| err(format!("up: {e}")))?;
                let down = self.perf(0, PERF_BYTES).await.map_err(|e| err(format!("down: {e}")))?;
                Ok(format!("up {up:.0} down {down:.0} MB/s"))
            }
            _ => Err(err("unknown check")),
        }
    }

    async fn identify(&mut self) -> Result<String> {
        let info = self.conn.as_mut().unwrap().identified.recv().await.ok_or(err("swarm ended"))??;
        if info.agent_version.is_empty() {
            return Err(err("no agent version"));
        }
        if !info.observed_addr.to_string().starts_with("/ip4/127.0.0.1/") {
            return Err(err(format!("observed address {}", info.observed_addr)));
        }
        if !self.args.to.ends_with(&format!("/p2p/{}", info.public_key.to_peer_id())) {
            return Err(err(format!("public key of {}", info.public_key.to_peer_id())));
        }
        for p in [ECHO, PERF, "/ipfs/ping/1.0.0", "/ipfs/id/1.0.0"] {
            if !info.protocols.iter().any(|have| have.as_ref() == p) {
                return Err(err(format!("protocols lack {p}: {:?}", info.protocols)));
            }
        }
        Ok(format!("{}, {} protocols, sees us at {}", info.agent_version, info.protocols.len(), info.observed_addr))
    }

    async fn echo_once(&self, i: u8) -> Result<Stream> {
        let mut s = self.open(ECHO).await?;
        let mut got = [0; 1024];
        send(&mut s, &[i; 1024]).await?;
        s.read_exact(&mut got).await?;
        if got == [i; 1024] { Ok(s) } else { Err(err("echo differs")) }
    }

    async fn half_close(&self, data: &[u8]) -> Result<()> {
        let got = exchange(self.open(HALFCLOSE).await?, data, &[10_000]).await?;
        if got == Sha256::digest(data).as_slice() {
            return Ok(());
        }
        Err(err(format!("{} bytes came back, not the SHA-256", got.len())))
    }

    async fn reset(&mut self) -> Result<String> {
        let mut s = self.open(RESET).await?;
        send(&mut s, &[1]).await?;
        if !was_reset(&mut s).await {
            return Err(err("after the listener's reset, read says EOF and write works"));
        }
        let mut ours = self.open(RESETME).await?;
        send(&mut ours, &[1]).await?;
        ours.read_exact(&mut [0]).await?;
        drop(ours); // resets
        for _ in 0..250 {
            if exchange(self.open(RESETCOUNT).await?, &[], &[]).await? != b"0" {
                return Ok("seen both ways".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(err("seen here, but not there: the listener counts no reset within 5 s"))
    }

    async fn perf(&self, up: u64, down: u64) -> Result<f64> {
        let mut s = self.open(PERF).await?;
        let start = Instant::now();
        send(&mut s, &down.to_be_bytes()).await?;
        write_zeros(&mut s, up).await?;
        s.close().await?;
        match drain(&mut s).await? {
            n if n == down => Ok((up + down) as f64 / 1e6 / start.elapsed().as_secs_f64()),
            n => Err(err(format!("{n} bytes came back, not {down}"))),
        }
    }
}

async fn dial(args: Args) -> bool {
    let names: Vec<String> = args.checks.split(',').map(str::to_owned).collect();
    let mut dialer = Dialer { args, conn: None };
    let mut all_ok = true;
    for name in names {
        let start = Instant::now();
        let work: Pin<Box<dyn Future<Output = Result<String>>>> = Box::pin(dialer.check(&name));
        let result = tokio::time::timeout(CHECK_TIMEOUT, work).await
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::TimedOut, "timed out after 30 s")));
        all_ok &= result.is_ok();
        let ms = (start.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        let (ok, detail) = match result { Ok(d) => (true, d), Err(e) => (false, e.to_string()) };
        println!("{}", json!({"check": name, "ok": ok, "detail": detail, "ms": ms}));
    }
    all_ok
}

struct Args { listen: String, to: String, transport: String, security: String, muxer: String, cert: String, psk: String, checks: String }

#[tokio::main]
async fn main() {
    // libp2p brings two, so that the DTLS of libp2p-webrtc does not know which.
    rustls::crypto::ring::default_provider().install_default().expect("the first");
    let argv: Vec<String> = std::env::args().collect();
    let flag = |name: &str, default: &str| {
        argv.iter().position(|a| a == name).and_then(|i| argv.get(i + 1)).cloned().unwrap_or(default.into())
    };
    let args = Args {
        listen: flag("--listen", "/ip4/127.0.0.1/tcp/0"),
        to: flag("--to", ""),
        transport: flag("--transport", "tcp"),
        security: flag("--security", "noise"),
        muxer: flag("--muxer", "yamux"),
        cert: flag("--cert", ""),
        psk: flag("--psk", ""), // a file with the key of a private network
        checks: flag("--checks", CHECKS),
    };
    let verb = argv.iter().map(String::as_str).find(|a| ["features", "listen", "dial"].contains(a));
    let ok = match verb {
        Some("features") => {
            println!("{}", json!({"name": "rust-libp2p", "version": version(),
                "transport": ["tcp", "ws", "wss", "quic", "webrtc-direct"],
                "security": ["noise", "tls", "plaintext"], "muxer": ["yamux", "mplex"]}));
            true
        }
        Some("listen") => listen(&args).await.inspect_err(|e| eprintln!("{e}")).is_ok(),
        Some("dial") => dial(args).await,
        _ => { eprintln!("usage: PEER features|listen|dial [flags]"); false }
    };
    std::process::exit(if ok { 0 } else { 1 });
}
