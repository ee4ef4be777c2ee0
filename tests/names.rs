//! Names are looked up as on any machine: hosts file, search list, several servers, both families, over real sockets.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use devnet::dns::{Asked, Fault, NameServer};
use futures_util::FutureExt as _;
use pin_sidecar::transport::{
    self, Dial, DialError, Endpoint, LookupFailure, NameError, Resolver, ServerFailure, Sources,
    TcpDialer,
};
use support::{CLIENT, Sidecar, gateway, ollama};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpListener,
    process::{Child, Command},
};
use tokio_rustls::TlsAcceptor;

/// Far above what any look-up here takes, except those that are to run into it.
const LIMIT: Duration = Duration::from_secs(60);

/// What shows that something was not waited for: less than [`LIMIT`], and the DNS's own five seconds.
const AT_ONCE: Duration = Duration::from_secs(4);

const NAME: &str = "gateway.example";
const V4: &str = "192.0.2.1";
const V6: &str = "2001:db8::1";

/// A machine with its two files.
struct Machine {
    files: TempDir,
    resolver: Resolver,
}

impl Machine {
    /// A machine that asks these servers, which have one port.
    fn asking(servers: &[&NameServer], more: &str) -> Self {
        let port = servers.first().map_or(9, |server| server.addr().port());
        let machine = Self::at_port(port);
        machine.write_resolv_conf(servers, more);
        machine
    }

    /// A machine without either file.
    fn at_port(dns_port: u16) -> Self {
        let files = tempfile::tempdir().unwrap();
        let resolver = Resolver::new(Sources {
            hosts: files.path().join("hosts"),
            resolv_conf: files.path().join("resolv.conf"),
            dns_port,
        });
        Self { files, resolver }
    }

    fn write_resolv_conf(&self, servers: &[&NameServer], more: &str) {
        let servers = servers
            .iter()
            .map(|server| format!("nameserver {}\n", server.addr().ip()));
        let text = servers.collect::<String>() + more + "\n";
        fs::write(self.files.path().join("resolv.conf"), text).unwrap();
    }

    fn write_hosts(&self, text: &str) {
        fs::write(self.files.path().join("hosts"), text).unwrap();
    }

    async fn look_up(&self, name: &str) -> Result<Vec<String>, NameError> {
        self.look_up_within(name, LIMIT).await
    }

    async fn look_up_within(&self, name: &str, limit: Duration) -> Result<Vec<String>, NameError> {
        let addresses = self.resolver.resolve(name, 443, limit).await?;
        assert!(addresses.iter().all(|address| address.port() == 443));
        Ok(addresses
            .iter()
            .map(|address| address.ip().to_string())
            .collect())
    }
}

/// As a user sees it whom the file's mode keeps out; the tests may run as one whom none does.
#[tokio::test]
async fn a_file_of_names_that_cannot_be_read_is_named_and_nobody_else_is_blamed() {
    for file in ["resolv.conf", "hosts"] {
        let machine = Machine::at_port(9);
        let path = machine.files.path().join(file);
        fs::create_dir(&path).unwrap();
        let told = machine
            .look_up("gateway.test")
            .await
            .unwrap_err()
            .to_string();
        let words = format!("since {} cannot be read: Is a directory", path.display());
        assert!(told.contains(&words), "{told}");
        assert!(
            told.contains("owner uid ") && told.contains("this process: uid "),
            "{told}"
        );
    }
}

async fn server() -> NameServer {
    let server = NameServer::start().await.unwrap();
    server.add(NAME, V4);
    server
}

async fn servers<const N: usize>() -> [NameServer; N] {
    let servers = NameServer::several::<N>().await.unwrap();
    for server in &servers {
        server.add(NAME, &format!("192.0.2.{}", last_byte(server)));
    }
    servers
}

/// What tells the servers apart.
fn last_byte(server: &NameServer) -> u8 {
    match server.addr() {
        SocketAddr::V4(addr) => addr.ip().octets()[3],
        SocketAddr::V6(_) => 0,
    }
}

fn names(asked: &[Asked]) -> Vec<String> {
    let mut names: Vec<_> = asked.iter().map(|asked| asked.name.clone()).collect();
    names.dedup();
    names
}

fn trouble(server: &NameServer, trouble: LookupFailure) -> ServerFailure {
    ServerFailure {
        server: server.addr().ip(),
        trouble,
    }
}

#[tokio::test]
async fn a_name_has_the_addresses_of_both_families_ipv6_first() {
    let server = server().await;
    server.add(NAME, "192.0.2.2");
    server.add(NAME, V6);
    let machine = Machine::asking(&[&server], "");
    assert_eq!(machine.look_up(NAME).await.unwrap(), [V6, V4, "192.0.2.2"]);
    assert_eq!(machine.look_up("GateWay.Example").await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_chain_of_aliases_is_followed_in_whatever_order_it_comes() {
    let server = server().await;
    server.alias("www.example", "cdn.example");
    server.alias("cdn.example", "edge.example");
    server.alias("edge.example", NAME);
    let machine = Machine::asking(&[&server], "");
    assert_eq!(machine.look_up("www.example").await.unwrap(), [V4]);
}

#[tokio::test]
async fn aliases_that_go_round_end() {
    let server = server().await;
    server.alias("a.example", "b.example");
    server.alias("b.example", "a.example");
    server.add("a.example", V4);
    let machine = Machine::asking(&[&server], "");
    assert!(machine.look_up("a.example").await.is_err());
}

#[tokio::test]
async fn a_service_of_compose_may_have_an_underscore() {
    let server = NameServer::start().await.unwrap();
    server.add("my_ollama", V4);
    let machine = Machine::asking(&[&server], "options ndots:0");
    assert_eq!(machine.look_up("my_ollama").await.unwrap(), [V4]);
}

#[tokio::test]
async fn a_family_that_fails_does_not_fail_the_other() {
    let server = server().await;
    server.add("six.example", V6);
    let machine = Machine::asking(&[&server], "");
    for fault in [Fault::Failure, Fault::Refusal, Fault::Denial] {
        server.heal();
        server.fail(fault, |asked| asked.v6 == (asked.name == NAME));
        assert_eq!(machine.look_up(NAME).await.unwrap(), [V4], "{fault:?}");
        assert_eq!(
            machine.look_up("six.example").await.unwrap(),
            [V6],
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn a_family_that_is_not_answered_is_not_waited_for() {
    let server = server().await;
    server.add("six.example", V6);
    server.fail(Fault::Silence, |asked| asked.v6 == (asked.name == NAME));
    let machine = Machine::asking(&[&server], "");
    let start = Instant::now();
    assert_eq!(machine.look_up(NAME).await.unwrap(), [V4]);
    assert_eq!(machine.look_up("six.example").await.unwrap(), [V6]);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_family_that_there_is_none_of_leaves_the_other_its_time() {
    let server = server().await;
    let late = Fault::Delay(Duration::from_millis(300));
    server.fail(late, |asked| !asked.v6);
    let machine = Machine::asking(&[&server], "");
    assert_eq!(machine.look_up(NAME).await.unwrap(), [V4]);
}

#[tokio::test]
async fn a_server_that_refuses_or_is_silent_or_gone_leaves_it_to_the_next() {
    for fault in [Fault::Failure, Fault::Refusal, Fault::Silence] {
        let [first, second] = servers().await;
        first.fail(fault, |_| true);
        let machine = Machine::asking(&[&first, &second], "");
        assert_eq!(
            machine.look_up(NAME).await.unwrap(),
            ["192.0.2.2"],
            "{fault:?}"
        );
    }
    let [first, second] = servers().await;
    let machine = Machine::asking(&[&first, &second], "");
    drop(first);
    let start = Instant::now();
    assert_eq!(machine.look_up(NAME).await.unwrap(), ["192.0.2.2"]);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

#[tokio::test]
async fn two_dead_servers_are_passed_within_the_time_for_one_step() {
    let [first, second, third] = servers().await;
    first.fail(Fault::Silence, |_| true);
    second.fail(Fault::Silence, |_| true);
    let machine = Machine::asking(&[&first, &second, &third], "options timeout:30");
    let default_limit = Duration::from_secs(10);
    let found = machine.look_up_within(NAME, default_limit).await;
    assert_eq!(found.unwrap(), ["192.0.2.3"]);
}

#[tokio::test]
async fn two_dead_servers_cost_their_time_once_and_not_for_each_search_domain() {
    let [first, second, third] = servers().await;
    first.fail(Fault::Silence, |_| true);
    second.fail(Fault::Silence, |_| true);
    let more = "search a.local b.local c.local d.local e.local\noptions ndots:5";
    let machine = Machine::asking(&[&first, &second, &third], more);
    let start = Instant::now();
    assert_eq!(machine.look_up(NAME).await.unwrap(), ["192.0.2.3"]);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    let asked = first.asked().len();
    assert_eq!(machine.look_up(NAME).await.unwrap(), ["192.0.2.3"]);
    assert_eq!(first.asked().len(), asked, "it was silent a moment ago");
}

#[tokio::test]
async fn every_server_has_its_turn_in_a_time_that_is_shorter_than_their_silences() {
    let [first, second, third] = servers().await;
    first.fail(Fault::Silence, |_| true);
    second.fail(Fault::Silence, |_| true);
    let machine = Machine::asking(&[&first, &second, &third], "");
    let found = machine.look_up_within(NAME, Duration::from_secs(2)).await;
    assert_eq!(found.unwrap(), ["192.0.2.3"]);
}

#[tokio::test]
async fn a_server_that_is_there_decides_alone_also_that_there_is_no_such_name() {
    let [first, second] = servers().await;
    let machine = Machine::asking(&[&first, &second], "");
    assert_eq!(machine.look_up(NAME).await.unwrap(), ["192.0.2.1"]);
    second.add("intern.example", V4);
    let error = machine.look_up("intern.example").await;
    assert_eq!(error, Err(NameError::NoSuchName));
    assert_eq!(second.asked(), []);
}

#[tokio::test]
async fn rotating_servers_all_get_their_share() {
    let servers = servers::<3>().await;
    let machine = Machine::asking(&servers.each_ref(), "options rotate");
    for _ in 0..200 {
        machine.look_up(NAME).await.unwrap();
    }
    assert!(servers.iter().all(|server| !server.asked().is_empty()));
}

#[tokio::test]
async fn a_datagram_that_is_lost_is_sent_again() {
    let server = server().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    server.fail(Fault::Silence, move |asked| {
        let mut seen = seen.lock().unwrap();
        seen.push(asked.clone());
        seen.iter().filter(|earlier| *earlier == asked).count() == 1
    });
    let machine = Machine::asking(&[&server], "");
    assert_eq!(machine.look_up(NAME).await.unwrap(), [V4]);
}

#[tokio::test]
async fn an_answer_that_does_not_fit_comes_over_tcp() {
    let server = server().await;
    server.add(NAME, "192.0.2.2");
    server.fail(Fault::Truncation(1), |asked| !asked.tcp);
    let machine = Machine::asking(&[&server], "");
    assert_eq!(machine.look_up(NAME).await.unwrap(), [V4, "192.0.2.2"]);
}

#[tokio::test]
async fn where_tcp_is_blocked_the_part_that_fits_serves() {
    let server = server().await;
    server.add(NAME, "192.0.2.2");
    server.fail(Fault::Truncation(1), |asked| !asked.tcp);
    server.fail(Fault::Silence, |asked| asked.tcp);
    let machine = Machine::asking(&[&server], "");
    assert_eq!(machine.look_up(NAME).await.unwrap(), [V4]);
}

#[tokio::test]
async fn tcp_alone_is_used_where_resolv_conf_says_so() {
    let server = server().await;
    let machine = Machine::asking(&[&server], "options use-vc");
    assert_eq!(machine.look_up(NAME).await.unwrap(), [V4]);
    assert!(server.asked().iter().all(|asked| asked.tcp));
}

#[tokio::test]
async fn answers_to_what_was_not_asked_are_ignored() {
    let server = server().await;
    server.fail(Fault::Forgery, |_| true);
    let machine = Machine::asking(&[&server], "");
    assert_eq!(machine.look_up(NAME).await.unwrap(), [V4]);
}

#[tokio::test]
async fn a_short_name_is_completed_as_kubernetes_means_it() {
    let server = NameServer::start().await.unwrap();
    server.add("ollama.models.svc.cluster.local", V4);
    let more = "search default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5";
    let machine = Machine::asking(&[&server], more);
    assert_eq!(machine.look_up("ollama.models").await.unwrap(), [V4]);
    let tried = [
        "ollama.models.default.svc.cluster.local",
        "ollama.models.svc.cluster.local",
    ];
    assert_eq!(names(&server.asked()), tried);
}

#[tokio::test]
async fn a_full_name_is_found_behind_the_search_list_too() {
    let server = server().await;
    let machine = Machine::asking(&[&server], "search a.local b.local\noptions ndots:5");
    assert_eq!(machine.look_up(NAME).await.unwrap(), [V4]);
    let tried = ["gateway.example.a.local", "gateway.example.b.local", NAME];
    assert_eq!(names(&server.asked()), tried);
}

#[tokio::test]
async fn a_search_domain_whose_server_fails_does_not_end_the_search() {
    let server = server().await;
    server.fail(Fault::Failure, |asked| asked.name.ends_with("broken.local"));
    let machine = Machine::asking(&[&server], "search broken.local\noptions ndots:5");
    assert_eq!(machine.look_up(NAME).await.unwrap(), [V4]);
}

#[tokio::test]
async fn a_name_with_enough_dots_is_tried_as_it_is_first() {
    let server = server().await;
    server.add("ollama", V4);
    let machine = Machine::asking(&[&server], "search local");
    machine.look_up(NAME).await.unwrap();
    assert_eq!(names(&server.asked()), [NAME]);
    // Docker's own server says `ndots:0`.
    machine.write_resolv_conf(&[&server], "search local\noptions ndots:0");
    machine.look_up("ollama").await.unwrap();
    assert_eq!(names(&server.asked()), [NAME, "ollama"]);
}

#[tokio::test]
async fn a_name_with_a_dot_at_its_end_is_complete() {
    let server = NameServer::start().await.unwrap();
    server.add("ollama.local", V4);
    let machine = Machine::asking(&[&server], "search local\noptions ndots:5");
    let error = machine.look_up("ollama.").await;
    assert_eq!(error, Err(NameError::NoSuchName));
    assert_eq!(names(&server.asked()), ["ollama"]);
    assert_eq!(machine.look_up("ollama.local.").await.unwrap(), [V4]);
}

#[tokio::test]
async fn a_name_in_the_hosts_file_is_asked_of_nobody() {
    let server = server().await;
    let machine = Machine::asking(&[&server], "");
    machine.write_hosts("192.0.2.7 Gateway.Example gw\n2001:db8::7 gw\n");
    for name in [NAME, "gateway.example."] {
        assert_eq!(machine.look_up(name).await.unwrap(), ["192.0.2.7"]);
    }
    assert_eq!(
        machine.look_up("gw").await.unwrap(),
        ["2001:db8::7", "192.0.2.7"]
    );
    assert_eq!(server.asked(), []);
    machine.write_hosts("192.0.2.8 gw\n");
    assert_eq!(machine.look_up("gw").await.unwrap(), ["192.0.2.8"]);
    assert_eq!(machine.look_up(NAME).await.unwrap(), [V4]);
}

#[tokio::test]
async fn a_resolv_conf_that_changes_counts_from_the_next_look_up_on() {
    let [home, office] = servers().await;
    let machine = Machine::asking(&[&home], "");
    assert_eq!(machine.look_up(NAME).await.unwrap(), ["192.0.2.1"]);
    machine.write_resolv_conf(&[&office], "");
    assert_eq!(machine.look_up(NAME).await.unwrap(), ["192.0.2.2"]);
}

#[tokio::test]
async fn a_container_that_comes_back_under_another_address_is_found_at_once() {
    let server = NameServer::start().await.unwrap();
    let machine = Machine::asking(&[&server], "options ndots:0");
    assert_eq!(machine.look_up("ollama").await, Err(NameError::NoSuchName));
    server.add("ollama", V4);
    assert_eq!(machine.look_up("ollama").await.unwrap(), [V4]);
    server.remove("ollama");
    server.add("ollama", "192.0.2.9");
    assert_eq!(machine.look_up("ollama").await.unwrap(), ["192.0.2.9"]);
}

#[tokio::test]
async fn without_resolv_conf_a_server_on_this_machine_is_asked() {
    let server = server().await;
    let machine = Machine::at_port(server.addr().port());
    assert_eq!(machine.look_up(NAME).await.unwrap(), [V4]);
}

#[tokio::test]
async fn a_name_that_cannot_be_is_asked_of_nobody() {
    let server = server().await;
    let machine = Machine::asking(&[&server], "");
    let long = format!("{}.example", "x".repeat(64));
    for name in [
        &long,
        "a..example",
        ".",
        "",
        "b\u{fc}cher.example",
        "a\\046b",
        "a b",
    ] {
        assert_eq!(
            machine.look_up(name).await,
            Err(NameError::NoSuchName),
            "{name}"
        );
    }
    assert_eq!(server.asked(), []);
}

#[tokio::test]
async fn a_name_without_an_address_is_told_apart_from_one_that_is_not_there() {
    let server = server().await;
    let machine = Machine::asking(&[&server], "");
    let error = machine.look_up("nowhere.example").await.unwrap_err();
    assert_eq!(error, NameError::NoSuchName);
    assert!(error.to_string().contains("its name cannot be resolved"));
    server.add_without_address("mail.example");
    let error = machine.look_up("mail.example").await;
    assert_eq!(error, Err(NameError::NoAddress));
}

#[tokio::test]
async fn servers_that_are_of_no_use_are_named_with_what_is_wrong_with_each() {
    let [first, second, third] = servers().await;
    first.fail(Fault::Refusal, |_| true);
    second.fail(Fault::Silence, |_| true);
    let machine = Machine::asking(&[&first, &second, &third], "options timeout:1 attempts:1");
    let third_at = third.addr().ip();
    drop(third);
    let NameError::Unanswered(told) = machine.look_up(NAME).await.unwrap_err() else {
        panic!("it should say that nobody answered");
    };
    assert_eq!(told[1], trouble(&second, LookupFailure::Silent));
    let text = NameError::Unanswered(told).to_string();
    for words in [
        "127.0.0.1 says REFUSED".to_owned(),
        "127.0.0.2 does not answer".to_owned(),
        format!("{third_at} cannot be reached: connection refused"),
        "check /etc/resolv.conf".to_owned(),
    ] {
        assert!(text.contains(&words), "{words}: {text}");
    }
}

#[tokio::test]
async fn a_look_up_ends_in_time_and_leaves_nothing_behind() {
    let server = server().await;
    server.fail(Fault::Silence, |_| true);
    let machine = Machine::asking(
        &[&server],
        "search a.local b.local\noptions timeout:30 ndots:5",
    );
    let runtime = tokio::runtime::Handle::current().metrics();
    let tasks = runtime.num_alive_tasks();
    let start = Instant::now();
    let error = machine
        .look_up_within(NAME, Duration::from_millis(200))
        .await;
    let silent = vec![trouble(&server, LookupFailure::Silent)];
    assert_eq!(error, Err(NameError::Unanswered(silent)));
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());

    let both_are_asked = async {
        for v6 in [true, false] {
            let is_it = |asked: &Asked| asked.name == "cancelled.example" && asked.v6 == v6;
            server.wait_until_asked("the cancelled name", is_it).await;
        }
    };
    tokio::select! {
        biased;
        _ = machine.look_up("cancelled.example.") => panic!("nobody answers"),
        () = both_are_asked => {}
    }
    // The server holds each question in a task; there are no others.
    let held = runtime.num_alive_tasks() - tasks;
    assert_eq!(held, server.asked().len());
}

#[tokio::test]
async fn the_dialler_reaches_a_name_over_the_family_that_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = NameServer::start().await.unwrap();
    server.add("service.example", "127.0.0.1");
    server.add("service.example", "::1");
    let machine = Machine::asking(&[&server], "");
    let tls = transport::client_config(None).unwrap();
    let dialler = TcpDialer::new(tls, machine.resolver.clone(), LIMIT);
    let mut endpoint = Endpoint {
        host: "service.example".to_owned(),
        port: listener.local_addr().unwrap().port(),
        tls: false,
    };
    let (stream, accepted) = tokio::join!(dialler.dial(&endpoint), listener.accept());
    assert!(stream.is_ok() && accepted.is_ok());
    endpoint.host = "nowhere.example".to_owned();
    let error = dialler.dial(&endpoint).await.err();
    assert!(
        matches!(error, Some(DialError::Dns(NameError::NoSuchName))),
        "{error:?}"
    );
}

/// A machine on which this name has two addresses: the first takes connections and says nothing to TLS, the second
/// is to be served by the test.
async fn half_of_a_service(name: &str) -> (Machine, TcpListener, TcpListener) {
    let stalled = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = stalled.local_addr().unwrap().port();
    let works = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let machine = Machine::at_port(9);
    machine.write_hosts(&format!("127.0.0.1 {name}\n127.0.0.2 {name}\n"));
    (machine, stalled, works)
}

#[tokio::test]
async fn an_address_that_connects_and_stalls_in_tls_leaves_it_to_the_next_which_is_first_from_then_on()
 {
    let name = "service.example";
    let (machine, stalled, works) = half_of_a_service(name).await;
    let (server_config, certificate) = support::self_signed(&[name]);
    let roots = machine.files.path().join("roots.pem");
    fs::write(&roots, certificate).unwrap();
    let endpoint = Endpoint {
        host: name.to_owned(),
        port: works.local_addr().unwrap().port(),
        tls: true,
    };
    let acceptor = TlsAcceptor::from(server_config);
    let serving = async {
        loop {
            let (tcp, _) = works.accept().await.unwrap();
            acceptor.accept(tcp).await.unwrap();
        }
    };
    let dialling = async {
        let tls = transport::client_config(Some(&roots)).unwrap();
        let dialler = TcpDialer::new(tls, machine.resolver.clone(), LIMIT);
        for _ in 0..2 {
            let began = Instant::now();
            dialler.dial(&endpoint).await.map(drop).unwrap();
            assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        }
    };
    tokio::select! {
        () = serving => {}
        () = dialling => {}
    }
    let mut tried = 0;
    while stalled.accept().now_or_never().is_some() {
        tried += 1;
    }
    assert_eq!(tried, 1, "the second time it is not the first to be tried");
}

#[tokio::test]
async fn an_address_that_never_upgrades_or_hangs_up_leaves_the_next_attempt_to_another() {
    for hangs_up in [false, true] {
        let (gateway, ollama) = (gateway().await, ollama().await);
        let port = gateway.addr().port();
        let useless = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
        let machine = Machine::at_port(9);
        machine.write_hosts("127.0.0.2 gateway.example\n127.0.0.1 gateway.example\n");
        let _sidecar = Sidecar::start_with_names(
            CLIENT,
            &format!("ws://gateway.example:{port}"),
            &ollama.url(),
            machine.resolver.clone(),
            &[
                ("PIN_ALLOW_PLAINTEXT", "true"),
                ("PIN_CONNECT_TIMEOUT", "1s"),
                ("PIN_RECONNECT_MAX", "50ms"),
            ],
        );
        let useless = async {
            let (mut held, _) = useless.accept().await.unwrap();
            if hangs_up {
                held.shutdown().await.unwrap();
                drop(held);
            }
            useless.accept().await.unwrap();
            panic!("it is the first to be tried once more");
        };
        tokio::select! {
            () = useless => {}
            _ = gateway.wait_for_session(1) => {}
        }
    }
}

#[tokio::test]
async fn a_sidecar_finds_gateway_and_ollama_by_name_and_says_when_dns_is_down() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let server = NameServer::start().await.unwrap();
    let machine = Machine::asking(&[&server], "options ndots:0 timeout:1 attempts:1");
    server.fail(Fault::Silence, |_| true);
    let at = |name: &str, addr: SocketAddr| format!("{name}:{}", addr.port());
    let sidecar = Sidecar::start_with_names(
        CLIENT,
        &format!("ws://{}", at("gateway", gateway.addr())),
        &format!("http://{}", at("ollama", ollama.addr())),
        machine.resolver.clone(),
        &[
            ("PIN_ALLOW_PLAINTEXT", "true"),
            ("PIN_RECONNECT_MAX", "50ms"),
        ],
    );
    let words = "cannot be used: no DNS server could look up its name (127.0.0.1 does not answer)";
    sidecar.wait_until_pending(words).await;
    assert!(
        sidecar
            .metric("connect_failures_total{reason=\"dns\"}")
            .await
            >= 1.0
    );
    server.heal();
    server.add("gateway", "127.0.0.1");
    server.add("ollama", "127.0.0.1");
    sidecar.wait_until_pending("").await;
}

/// A real DNS server, with records for everything that a stand-in could get wrong. `None` where it is not installed.
async fn dnsmasq(port: u16) -> Option<Child> {
    let mut command = Command::new("dnsmasq");
    command
        .args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
        ])
        .args([
            "--user=",
            "--pid-file=",
            "--bind-interfaces",
            "--listen-address=127.0.0.1",
        ])
        .args([
            "--local=/example/",
            "--host-record=gateway.example,192.0.2.1,2001:db8::1",
        ])
        .args([
            "--cname=www.example,cdn.example",
            "--cname=cdn.example,gateway.example",
        ])
        .arg(format!("--port={port}"))
        .kill_on_drop(true);
    for last in 1..=60 {
        command.arg(format!("--host-record=many.example,192.0.2.{last}"));
    }
    let Ok(server) = command.spawn() else {
        devnet::skip_without("dnsmasq");
        return None;
    };
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let listens = || async move { tokio::net::TcpStream::connect(addr).await.is_ok() };
    support::poll(listens, |listens| *listens).await;
    Some(server)
}

#[tokio::test]
async fn a_real_dns_server_is_understood() {
    // A port that nobody else uses: free a moment ago, for UDP and TCP.
    let port = NameServer::start().await.unwrap().addr().port();
    tokio::task::yield_now().await;
    let Some(_server) = dnsmasq(port).await else {
        return;
    };
    let machine = Machine::at_port(port);
    for name in [NAME, "www.example"] {
        assert_eq!(machine.look_up(name).await.unwrap(), [V6, V4], "{name}");
    }
    // Five hundred and twelve bytes have room for half as many, so that the others came over TCP.
    assert_eq!(machine.look_up("many.example").await.unwrap().len(), 60);
    let nowhere = machine.look_up("nowhere.example").await;
    assert_eq!(nowhere, Err(NameError::NoSuchName));
    // It knows no server to ask in turn, and says REFUSED.
    let elsewhere = machine.look_up("elsewhere.test").await.unwrap_err();
    assert!(
        elsewhere.to_string().contains("127.0.0.1 says REFUSED"),
        "{elsewhere}"
    );
}
