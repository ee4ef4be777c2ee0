//! The network and the process between the stand-ins.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use devnet::{
    agent::{Agent, Signal},
    network::{Pace, Proxy, Reach, Way},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

async fn pair(proxy: &Proxy, target: &TcpListener) -> (TcpStream, TcpStream) {
    let (client, server) = tokio::join!(TcpStream::connect(proxy.addr()), target.accept());
    (client.unwrap(), server.unwrap().0)
}

async fn passes(from: &mut TcpStream, to: &mut TcpStream) -> bool {
    from.write_all(b"x").await.unwrap();
    timeout(Duration::from_millis(50), to.read_exact(&mut [0]))
        .await
        .is_ok_and(|read| read.is_ok())
}

#[tokio::test]
async fn a_network_stalls_mends_and_is_cut() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(target.local_addr().unwrap()).await.unwrap();
    let (mut client, mut server) = pair(&proxy, &target).await;
    assert!(passes(&mut client, &mut server).await);
    assert!(passes(&mut server, &mut client).await);

    proxy.stall();
    assert!(!passes(&mut client, &mut server).await);
    let late = TcpStream::connect(proxy.addr()).await.unwrap();
    proxy.mend().await.unwrap();
    server.read_exact(&mut [0]).await.unwrap();
    assert!(passes(&mut server, &mut client).await);
    drop((target.accept().await.unwrap(), late));

    proxy.cut().await;
    assert_eq!(
        client.read(&mut [0]).await.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
    assert_eq!(
        server.read(&mut [0]).await.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
    assert!(TcpStream::connect(proxy.addr()).await.is_err());
    proxy.mend().await.unwrap();
    let (mut client, mut server) = pair(&proxy, &target).await;
    assert!(passes(&mut client, &mut server).await);
}

#[tokio::test]
async fn a_process_is_heard_signalled_and_waited_for() {
    let script = "trap 'echo bye >&2; exit 3' TERM; echo $GREETING at $PIN_LISTEN_ADDR; while :; do sleep 0.01; done";
    let agent = Agent::builder("/bin/sh")
        .argument("-c")
        .argument(script)
        .env("GREETING", "hello");
    let agent = agent.env("PATH", "/usr/bin:/bin").start().await.unwrap();
    let line = agent
        .wait_for_log(|line| line.starts_with("hello at 127.0.0.1:"))
        .await;
    assert_eq!(
        format!("http://{}/readyz", line.trim_start_matches("hello at ")),
        agent.url("/readyz")
    );
    assert_eq!(agent.exit_status(), None);
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait().await.code(), Some(3));
    agent.wait_for_log(|line| line == "bye").await;
    let error = agent
        .wait_until_ready(Duration::from_secs(5))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("ended with exit status: 3"),
        "{error}"
    );
}

#[tokio::test]
async fn a_direction_that_is_lost_takes_bytes_and_ends_with_it_and_never_comes_back() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(target.local_addr().unwrap()).await.unwrap();
    let (mut client, mut server) = pair(&proxy, &target).await;
    assert!(passes(&mut client, &mut server).await);
    proxy.lose(Way::Up, Reach::Open);
    assert!(!passes(&mut client, &mut server).await);
    assert!(passes(&mut server, &mut client).await);
    proxy.mend().await.unwrap();
    assert!(!passes(&mut client, &mut server).await);
    let (mut new, mut served) = pair(&proxy, &target).await;
    assert!(passes(&mut new, &mut served).await);

    drop(client);
    assert!(!passes(&mut server, &mut new).await);
    let ended = timeout(Duration::from_millis(50), server.read(&mut [0])).await;
    assert!(ended.is_err(), "{ended:?}");
}

#[tokio::test]
async fn bytes_come_one_by_one_or_slowly_or_until_a_reset() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(target.local_addr().unwrap()).await.unwrap();
    let (mut client, mut server) = pair(&proxy, &target).await;
    for pace in [
        Pace::Bytewise,
        Pace::Slow {
            bytes_per_second: 50_000,
        },
    ] {
        proxy.pace(Way::Up, pace);
        client.write_all(&[7; 10_000]).await.unwrap();
        let began = std::time::Instant::now();
        let mut got = [0; 10_000];
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(got, [7; 10_000]);
        if pace != Pace::Bytewise {
            assert!(began.elapsed() >= Duration::from_millis(150), "{pace:?}");
        }
    }
    proxy.mend().await.unwrap();
    proxy.reset_after(Way::Up, 100);
    client.write_all(&[7; 99]).await.unwrap();
    server.read_exact(&mut [0; 99]).await.unwrap();
    client.write_all(&[7; 2]).await.unwrap();
    let end = client.read(&mut [0]).await.unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    let (mut new, mut served) = pair(&proxy, &target).await;
    assert!(passes(&mut new, &mut served).await);
}
