use super::*;

type Pairs = &'static [(&'static str, &'static str)];

fn database(text: &str, pairs: Pairs) -> Result<Database, String> {
    let options: Options = toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    Database::new(&options, |name| {
        pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    })
}

/// Where, who, with what password, which database, whether with TLS.
fn found(text: &str, pairs: Pairs) -> String {
    let Database { places, config, authorities } = database(text, pairs).unwrap();
    let places: Vec<String> = places.iter().map(ToString::to_string).collect();
    let password = config.get_password().map(|password| String::from_utf8_lossy(password).into_owned());
    let tls = authorities.map(|file| file.display().to_string()).unwrap_or_default();
    format!(
        "{} {} {} {} {tls}",
        places.join(","),
        config.get_user().unwrap(),
        password.unwrap_or_default(),
        config.get_dbname().unwrap_or("-")
    )
}

#[test]
fn the_database_is_found_as_its_own_clients_find_it() {
    assert_eq!(found("", &[]), "localhost:5432 postgres  - ");
    let variables: Pairs =
        &[("PGHOST", "db"), ("PGPORT", "5433"), ("PGUSER", "u"), ("PGPASSWORD", "p"), ("PGDATABASE", "d")];
    assert_eq!(found("", variables), "db:5433 u p d ");
    assert_eq!(found("", &[("PGHOST", "/run/pg")]), "/run/pg/.s.PGSQL.5432 postgres  - ");
    let text = "hostname = 'fd00::1'\nport = 6000\nusername = 'a'\npassword = 'b'\ndatabase = 'c'";
    assert_eq!(found(text, variables), "[fd00::1]:6000 a b c ");
    assert_eq!(found("socket_dir = '/run/x'\nport = 7", &[]), "/run/x/.s.PGSQL.7 postgres  - ");
    let url: Pairs = &[("DATABASE_URL", "ecto://user:p%40ss@db.internal:5444/shop")];
    assert_eq!(found("", url), "db.internal:5444 user p@ss shop ");
    assert_eq!(found("hostname = 'other'", url), "other:5432 postgres  - ");
    assert_eq!(found("ssl = true\ncacert = '/ca.pem'", url), "db.internal:5444 user p@ss shop /ca.pem");
    let text = "url = 'postgresql://user@one,two:6/shop?sslmode=require'\ncacert = '/ca.pem'";
    assert_eq!(found(text, &[]), "one:5432,two:6 user  shop /ca.pem");
    let hush = database("url = 'postgresql://user:hush@h:port/shop'", &[]).unwrap_err();
    assert!(hush.contains("postgresql://USER") && !hush.contains("hush"), "{hush}");
    let both = database("url = 'postgresql://h/d'\nhostname = 'x'", &[]).unwrap_err();
    assert!(both.contains("not both"), "{both}");
    let shown = format!(
        "{:?}",
        toml::from_str::<Options>("url = 'postgresql://u:hush@h'\npassword = 'hush'").unwrap()
    );
    assert!(!shown.contains("hush"), "{shown}");
}

#[test]
fn channels_are_identifiers() {
    let read = |text: &str| toml::from_str::<Options>(text).map_err(|error| error.to_string());
    assert_eq!(read("channel = 'a \"b\" c'").unwrap().channel_name, "a \"b\" c");
    for wrong in [
        "channel_name = ''".to_owned(),
        format!("channel_name = '{}'", "x".repeat(64)),
        "channel = \"a\\u0000\"".to_owned(),
    ] {
        assert!(read(&wrong).unwrap_err().contains("1 to 63 bytes"), "{wrong}");
    }
    assert!(read("payload = 'json'").unwrap_err().contains("heartbeat"));
    read("hostname = 'h'\nusername = 'u'\npassword = 'p'\ndatabase = 'd'\nport = 1\nssl = true\nheartbeat_interval = 1000").unwrap();
}

#[test]
fn who_is_not_heard_any_more_is_not_named() {
    use foundation_cluster::discovery::Event;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = Options { heartbeat_interval: Duration::from_millis(50), ..Options::default() };
        let mut context = Context::new(NodeName::parse("own@h").unwrap(), 4369);
        context.listens = vec!["127.0.0.1:1".parse().unwrap()];
        let postgres = Postgres::new(options, &context);
        let (sender, mut notifications) = mpsc::channel(8);
        let (events, mut told) = mpsc::channel(8);
        let reports = Reports::new(0, events);
        let mut heard = Heard { nodes: BTreeMap::new(), since: Instant::now() };
        let mut failures = 3;
        let listening = postgres.hear(&mut notifications, &mut heard, &mut failures, &reports);
        let checks = async {
            for payload in ["a@h", "heartbeat::b@h", "no name", "", "own@h"] {
                sender.send(payload.to_owned()).await.unwrap();
            }
            let mut seen = Vec::new();
            for _ in 0..2 {
                let Some(Event::Seen { candidate, .. }) = told.recv().await else { panic!() };
                seen.push(candidate.node.to_string());
            }
            assert_eq!(seen, ["a@h", "b@h"]);
            // Only one of them says more; the other is on the list until six intervals have passed.
            let mut beats = tokio::time::interval(Duration::from_millis(10));
            loop {
                tokio::select! {
                    _ = beats.tick() => for payload in ["a@h", "own@h"] {
                        sender.send(payload.to_owned()).await.unwrap();
                    },
                    event = told.recv() => {
                        let Some(Event::Answer { candidates, .. }) = event else { continue };
                        let names: Vec<_> =
                            candidates.iter().map(|candidate| candidate.node.to_string()).collect();
                        if names == ["a@h"] {
                            return;
                        }
                        assert_eq!(names, ["a@h", "b@h"]);
                    }
                }
            }
        };
        tokio::select! {
            why = listening => panic!("{why}"),
            done = tokio::time::timeout(Duration::from_secs(20), checks) => done.expect("b@h is forgotten"),
        }
        assert_eq!(failures, 0);
    });
}
