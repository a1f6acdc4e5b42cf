//! Cases of flags and files, and what they come to.

use clap::Parser;
use salver_predict::VersionChoice;
use salver_stream::{Order, Policies, Policy};

use super::*;
use crate::flags::{Cli, Command};

/// A folder with a model in it, so that paths have names.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for version in ["1", "2"] {
        let path = dir.path().join("net").join(version);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("model.onnx"), b"\x08\x08").unwrap();
    }
    std::fs::write(dir.path().join("other.onnx"), b"\x08\x08").unwrap();
    dir
}

/// What flags and a file come to; `NET` and `OTHER` stand for paths of models.
fn resolved(flags: &str, file: &str) -> anyhow::Result<Config> {
    let dir = folder();
    let with_paths = |text: &str| {
        text.replace("NET", &dir.path().join("net").display().to_string())
            .replace("OTHER", &dir.path().join("other.onnx").display().to_string())
    };
    let path = dir.path().join("stream.toml");
    std::fs::write(&path, with_paths(file)).unwrap();
    let config = format!("--config={}", path.display());
    let flags = with_paths(flags);
    let all = ["salver", "stream", &config].into_iter().chain(flags.split_whitespace());
    let Command::Stream(args) = Cli::parse_from(all).command else { panic!("the command is stream") };
    resolve(&args)
}

fn check_error(flags: &str, file: &str, expected: &str) {
    let error = format!("{:#}", resolved(flags, file).unwrap_err());
    assert!(error.contains(expected), "{flags} {file}: {error}");
}

#[test]
fn error_records_are_for_answers_that_are_json() {
    let check = |flags: &str, file: &str, expected: Option<&str>| {
        let flags = format!("--model NET --from {flags}");
        match expected {
            None => drop(resolved(&flags, file).unwrap()),
            Some(format) => check_error(
                &flags,
                file,
                &format!(
                    "errors.shape = 'emit' writes JSON among the answers, whose format is '{format}', expected json"
                ),
            ),
        }
    };
    let emit = "[errors]\nshape = 'emit'\n";
    check("a.csv --to b.jsonl", emit, None);
    check("a.csv --to b.csv", emit, Some("csv"));
    check("a.csv --to b.csv", "", None);
    check("a.csv --to -", emit, Some("csv"));
    check("a.csv --to -", &format!("{emit}[output]\nformat = 'json'"), None);
    check("kafka://b/t --to kafka://b/u", emit, None);
    check("kafka://b/t --to kafka://b/u --format image", emit, None);
    check("kafka://b/t --to kafka://b/u --format predict_request", emit, Some("predict_request"));
    check("kafka://b/t --to kafka://b/u", &format!("{emit}[output]\nformat = 'avro'"), Some("avro"));
}

const FILES: &str = "--from a.csv --to b.jsonl --model NET";

#[test]
fn flags_win_over_the_file() {
    let file = "[source]\nfrom = 'x.jsonl'\n[sink]\nto = 'y.jsonl'\n[model]\npath = 'OTHER'\n[batch]\nmax_batch = 9\nworkers = 3";
    let of_file = resolved("", file).unwrap();
    assert_eq!((of_file.from.to_string(), of_file.primary.name.as_str()), ("x.jsonl".into(), "other"));
    let both = resolved("--from z.jsonl --model NET --batch 5", file).unwrap();
    assert_eq!((both.from.to_string(), both.to.to_string()), ("z.jsonl".into(), "y.jsonl".into()));
    assert_eq!(both.primary.name.as_str(), "net");
    let pipeline = &both.pipeline;
    assert_eq!((pipeline.max_batch.get(), pipeline.workers.map(NonZeroUsize::get)), (5, Some(3)));
}

#[test]
fn what_is_not_said_is_chosen() {
    let check = |flags: &str, file: &str, delivery: Delivery, order: Order, dead: Option<&str>| {
        let config = resolved(flags, file).unwrap();
        let found = (config.pipeline.delivery, config.pipeline.order);
        assert_eq!(found, (delivery, order), "{flags} {file}");
        assert_eq!(config.dead.map(|dead| dead.to_string()).as_deref(), dead, "{flags} {file}");
    };
    let (once, least) = (Delivery::ExactlyOnce, Delivery::AtLeastOnce);
    check(FILES, "", once, Order::Partition, Some("b.jsonl.dead.jsonl"));
    check(FILES, "[sink]\ndead_letters = 'none'", once, Order::Partition, None);
    check(
        &format!("{FILES} --delivery at_least_once"),
        "",
        least,
        Order::Partition,
        Some("b.jsonl.dead.jsonl"),
    );
    check("--from - --to - --model NET", "", least, Order::Partition, None);
    check("--from - --to - --model NET", "[delivery]\norder = 'none'", least, Order::None, None);
}

#[cfg(feature = "kafka")]
#[test]
fn what_is_not_said_of_topics_is_chosen() {
    let check = |flags: &str, delivery: Delivery, group: &str, dead: Option<&str>| {
        let config = resolved(flags, "").unwrap();
        assert_eq!(config.pipeline.delivery, delivery, "{flags}");
        assert!(config.group.starts_with(group), "{flags}: {}", config.group);
        assert_eq!(config.dead.map(|dead| dead.to_string()).as_deref(), dead, "{flags}");
    };
    let topics = "--from kafka://a/in --to kafka://a/out --model NET";
    check(topics, Delivery::ExactlyOnce, "salver-net", None);
    check(&format!("{topics} --until end"), Delivery::ExactlyOnce, "salver-net-replay-", None);
    check(
        &format!("{topics} --group g --dead-letters dead"),
        Delivery::ExactlyOnce,
        "g",
        Some("kafka://a:9092/dead"),
    );
    check("--from kafka://a/in --to kafka://b/out --model NET", Delivery::AtLeastOnce, "salver-net", None);
    check(
        "--from kafka://a/in --to o.jsonl --model NET",
        Delivery::AtLeastOnce,
        "salver-net",
        Some("o.jsonl.dead.jsonl"),
    );
    let error = "exactly_once is not possible from kafka://a:9092/in to kafka://b:9092/out";
    check_error("--from kafka://a/in --to kafka://b/out --model NET --delivery exactly_once", "", error);
    check_error(&format!("{topics} --dead-letters kafka://b/dead"), "", "expected a topic of the brokers");
    check_error(&format!("{topics} --restart"), "", "--restart is for files");
    check_error(topics, "[source]\nkey = 'id'", "source.key is for files");
    // The same part again is the same group; another part is another one.
    let group = |until: &str| resolved(&format!("{topics} --until {until}"), "").unwrap().group;
    assert_eq!(group("5"), group("5"));
    assert_ne!(group("5"), group("6"));
    let replay = resolved(&format!("{topics} --until 5"), "").unwrap();
    assert_eq!(resolved("", &replay.shown_text().unwrap()).unwrap().group, replay.group);
    // Nor is it ever the stream's.
    check(&format!("{topics} --until end --group g"), Delivery::ExactlyOnce, "g-replay-", None);
    let own = "a replay under them would shut the stream out";
    check_error(&format!("{topics} --until end"), "[source]\ninstance = 'one'", own);
    check_error(&format!("{topics} --until end"), "[delivery]\ntransactional_id = 'one'", own);
}

#[test]
fn files_say_their_formats() {
    let check = |flags: &str, file: &str, input: Option<mapping::Format>, output: Option<mapping::Format>| {
        let config = resolved(flags, file).unwrap();
        assert_eq!((config.mapping.input.format, config.mapping.output.format), (input, output), "{flags}");
    };
    let (csv, json) = (Some(mapping::Format::Csv), Some(mapping::Format::Json));
    check("--from a.csv --to b.csv --model NET", "", csv, csv);
    check("--from a.csv --to b.jsonl --model NET", "", csv, json);
    check("--from a.jsonl.gz --to b.csv --model NET", "", None, csv);
    check("--from a.jsonl --to b.jsonl --model NET", "", None, json);
    check("--from - --to - --format csv --model NET", "", csv, None);
    check("--from a.csv --to - --model NET", "", csv, None);
    let check = |flags: &str, file: &str, expected: char| {
        assert_eq!(resolved(flags, file).unwrap().mapping.input.csv.delimiter, expected, "{flags} {file}");
    };
    check("--from a.tsv --to b.tsv --model NET", "", '\t');
    check("--from a.tsv --to b.tsv --format csv --model NET", "", '\t');
    check("--from a.jsonl --to b.tsv --model NET", "", '\t');
    check("--from - --to b.tsv --format csv --model NET", "", ',');
    check("--from a.csv --to b.csv --model NET", "[input]\ncsv = { delimiter = \";\" }", ';');
    check("--from a.tsv --to b.csv --model NET", "[input]\ncsv = { delimiter = \";\" }", ';');
}

#[test]
fn here_or_there() {
    let is_here = |flags: &str, file: &str| {
        let config = resolved(flags, file).unwrap();
        (matches!(config.models, Where::Here(_)), config.primary, config.pipeline.in_flight.get())
    };
    let ends = "--from a.jsonl --to b.jsonl";
    let (here, primary, in_flight) = is_here(&format!("{ends} --model NET --model-version 2"), "");
    assert_eq!((here, primary.version, in_flight), (true, VersionChoice::Number(2), 2));
    let remote = format!("{ends} --model digits --remote a:8500,b:8500");
    let (here, primary, in_flight) = is_here(&remote, "");
    assert_eq!((here, primary.name.as_str(), in_flight), (false, "digits", 8));
    let (_, primary, _) = is_here(&format!("{remote} --model-version stable"), "");
    assert_eq!(primary.version, VersionChoice::Label("stable".into()));
    let (here, ..) = is_here(&format!("{ends} --model digits"), "[remote]\nhosts = ['a:8500']");
    assert!(!here);
    let tries = "[remote]\nhosts = ['a:8500']\ntry_timeout_ms = 250";
    match resolved(&format!("{ends} --model digits"), tries).unwrap().models {
        Where::There(settings) => assert_eq!(settings.try_timeout, Some(Duration::from_millis(250))),
        Where::Here(_) => panic!("the model is there"),
    }
    let headers = "[remote]\nhosts = ['a:8500']\nheaders = { Authorization = 'Bearer word', x-home = { env = 'HOME' } }";
    match resolved(&format!("{ends} --model digits"), headers).unwrap().models {
        Where::There(settings) => {
            assert_eq!(
                (settings.headers.len(), settings.headers["authorization"].as_bytes()),
                (2, &b"Bearer word"[..])
            );
        }
        Where::Here(_) => panic!("the model is there"),
    }
    check_error(
        &format!("{ends} --model NET"),
        "[remote.headers]\na = 'b'",
        "remote.headers without remote.hosts",
    );
    let wrong = "[remote]\nhosts = ['a:1']\n[remote.headers]\na = { evn = 'x' }";
    check_error(
        &format!("{ends} --model digits"),
        wrong,
        "line 4: unknown field `evn`, expected `env` or `file`",
    );
    check_error(ends, "[model]\npath = 'NET'\n[remote]\nhosts = ['a:1']", "are both set");
    check_error(&format!("{ends} --model-version x --model NET"), "", "labels are for --remote");
    check_error(ends, "", "--model is missing");
    check_error(&format!("{remote} --model-version 1"), "[model]\nlabel = 'x'", "are both set");
    check_error(ends, "[model]\nname = 'x'", "without model.path");
    check_error(&format!("{ends} --model digits --remote a:b:c"), "", "remote.hosts: 'a:b:c'");
}

#[test]
fn canary_and_shadow_are_asked_apart() {
    let remote = "--from a.jsonl --to b.jsonl --model digits --remote a:8500";
    let shadow = "[shadow]\npercent = 100\nto = 's.jsonl'\n";
    let file = format!("[canary]\npercent = 5\nversion = 2\n{shadow}model = 'large'\nlabel = 'new'");
    let Where::There(settings) = resolved(remote, &file).unwrap().models else {
        panic!("the model is there")
    };
    let apart = |role: &str, name: &str, version| salver_remote::Apart {
        role: role.to_owned(),
        spec: ModelSpec { name: ModelName::new(name).unwrap(), version },
    };
    let expected = [
        apart("canary", "digits", VersionChoice::Number(2)),
        apart("shadow", "large", VersionChoice::Label("new".into())),
    ];
    assert_eq!(settings.apart, expected);
    let same = "[shadow] names what [model] does";
    check_error(remote, &format!("{shadow}model = 'digits'"), same);
    check_error(&format!("{remote} --model-version 2"), &format!("{shadow}version = 2"), same);
}

#[test]
fn versions_beside_each_other_are_all_loaded() {
    let wanted = |file: &str| match resolved("--from a.jsonl --to b.jsonl", file).unwrap().models {
        Where::Here(settings) => settings.models,
        Where::There(_) => panic!("the model is here"),
    };
    let versions = |file: &str| wanted(file).into_iter().map(|model| model.versions).collect::<Vec<_>>();
    let model = "[model]\npath = 'NET'\n";
    assert_eq!(versions(model), [Vec::<i64>::new()]);
    assert_eq!(versions(&format!("{model}version = 1\n[canary]\npercent = 5\nversion = 2")), [vec![1, 2]]);
    let shadow = "[shadow]\npercent = 100\nto = 's.jsonl'\npath = 'OTHER'";
    assert_eq!(versions(&format!("{model}{shadow}")), [vec![], Vec::<i64>::new()]);
    let error = |file: &str, expected: &str| check_error("--from a.jsonl --to b.jsonl", file, expected);
    error(&format!("{model}[canary]\npercent = 5\nversion = 2"), "needs model.version too");
    error(&format!("{model}[canary]\npercent = 5"), "names neither a version nor another model");
    error(&format!("{model}[canary]\npercent = 500\npath = 'OTHER'"), "canary.percent is 500");
    error(&format!("{model}[canary]\npercent = 5\npath = 'NET'"), "names a model 'net' as model.path does");
    error(&format!("{model}[canary]\npercent = 5\nlabel = 'x'"), "are for remote.hosts");
    error(
        &format!("{model}[shadow]\npercent = 5\nversion = 2\nto = 'b.jsonl'"),
        "answers of the shadow would go to",
    );
}

#[test]
fn policies_follow_the_dead_letters() {
    let on = |flags: &str, file: &str| resolved(flags, file).unwrap().pipeline.on;
    let dead = Policies {
        tombstone: Policy::Pass,
        timeout: Policy::Fail,
        unavailable: Policy::Fail,
        ..Policies::all(Policy::Dead)
    };
    assert_eq!(on(FILES, ""), dead);
    assert_eq!(on(FILES, "[errors]\nshape = 'skip'"), Policies { shape: Policy::Skip, ..dead.clone() });
    let skip = Policies { tombstone: Policy::Pass, ..Policies::all(Policy::Skip) };
    assert_eq!(on(FILES, "[errors]\npolicy = 'skip'"), skip);
    let pipes = "--from - --to - --model NET";
    assert_eq!(on(pipes, ""), Policies::default());
    check_error(pipes, "[errors]\nformat = 'dead'", "without dead letters");
    check_error(FILES, "[errors]\nformat = 'pass'", "pass is for tombstones");
}

#[test]
fn what_cannot_be_is_refused() {
    check_error("--from a.csv --to a.csv --model NET", "", "records come from a.csv and go to a.csv");
    check_error("--to b.csv --model NET", "", "--from is missing (or source.from in the file of --config)");
    check_error(&format!("{FILES} --until end"), "", "is said of topics");
    check_error(FILES, "[delivery]\ncommit_interval_ms = -1", "delivery.commit_interval_ms = -1");
    check_error(FILES, "[source]\nfrm = 'x'", "stream.toml: line 2: unknown field `frm`");
    check_error(&format!("{FILES} --format xml"), "", "unknown variant `xml`");
    check_error(&format!("{FILES} --dead-letters b.jsonl"), "", "where records come from or answers go to");
    check_error("--from - --to - --restart --model NET", "", "--restart is for files");
    check_error(&format!("{FILES} --rate 0"), "", "rate is 0");
}

#[test]
fn what_is_shown_says_the_same_again() {
    let first = resolved(&format!("{FILES} --batch 7"), "[errors]\nshape = 'skip'").unwrap();
    let text = first.shown_text().unwrap();
    assert!(text.contains("max_batch = 7") && text.contains("mode = \"exactly_once\""), "{text}");
    let again = toml::from_str::<Table>(&text).unwrap();
    assert_eq!(again, first.shown);
}

#[cfg(feature = "kafka")]
#[test]
fn partitions_are_given_up_before_the_group_goes_on() {
    let flags = "--from kafka://a:1/x --to kafka://a:1/y --group g --model NET";
    let check = |file: &str, expected: Option<&str>| match expected {
        Some(expected) => check_error(flags, file, expected),
        None => drop(resolved(flags, file).unwrap()),
    };
    check("[delivery]\ndrain_ms = 89999", None);
    check("[delivery]\ndrain_ms = 90000", Some("kafka.source.max_poll_interval_ms, which is 90000"));
    let both =
        |drain: u32| format!("[delivery]\ndrain_ms = {drain}\n[kafka.source]\nmax_poll_interval_ms = 200000");
    check(&both(100_000), None);
    check(&both(300_000), Some("delivery.drain_ms is 300000, expected less than"));
    let files = "--from a.jsonl --to b.jsonl --model NET";
    resolved(files, "[delivery]\ndrain_ms = 300000").unwrap();
}

#[test]
fn what_is_secret_is_not_shown() {
    let said = "[kafka.connection]\npassword = 'x'\nuser = 'u'\npassword_env = 'P'\n[kafka.connection.properties]\n\
        'ssl.key.password' = 'x'\n'ssl.key.pem' = 'x'\n'sasl.oauthbearer.client.secret' = 'x'\n'client.rack' = 'r'\n\
        [registry]\nurls = ['u']\ntoken = 'x'\n[remote.headers]\nauthorization = 'x'\nkey = { env = 'K' }";
    let mut table: Table = toml::from_str(said).unwrap();
    hide(&mut table);
    let expected = said.replace("'x'", "'(not shown)'");
    assert_eq!(table, toml::from_str::<Table>(&expected).unwrap());
}

#[test]
fn places_have_several_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::create_dir(path("folder")).unwrap();
    std::fs::write(path("a.csv"), "x\n").unwrap();
    std::fs::hard_link(path("a.csv"), path("hard.csv")).unwrap();
    std::os::unix::fs::symlink(path("a.csv"), path("soft.csv")).unwrap();
    let check = |from: &str, to: &str, file: &str, expected: &str| {
        let flags = format!("--from {} --to {} --model NET --restart", path(from), path(to));
        check_error(&flags, &file.replace("DIR", &dir.path().display().to_string()), expected);
    };
    for to in ["./a.csv", "folder/../a.csv", "hard.csv", "soft.csv"] {
        check("a.csv", to, "", "expected two places");
    }
    check("a.csv", "b.csv", "[sink]\ndead_letters = 'DIR/./b.csv'", "the dead letters would go to");
    let shadow = "[shadow]\npercent = 1\nto = 'DIR/folder/../c.csv'\npath = 'OTHER'";
    check("a.csv", "b.csv", &format!("[sink]\ndead_letters = 'DIR/c.csv'\n{shadow}"), "expected two places");
}

#[test]
fn keys_that_nothing_would_look_at_are_refused() {
    let remote = "--from a.jsonl --to b.jsonl --model digits --remote a:8500";
    for (file, expected) in [
        ("[model]\nthreads = 2", "model.threads is for a model in this process"),
        ("[canary]\npercent = 5\npath = 'OTHER'", "name it by canary.model"),
        (
            "[remote]\ncertificate_file = 'c'\nkey_file = 'k'",
            "remote.certificate_file without remote.ca_file",
        ),
        ("[remote]\nserver_name = 'a'", "remote.server_name without remote.ca_file"),
        ("[remote]\nretry_share = 1.5", "remote.retry_share is 1.5, expected 0 to 1"),
        ("[remote]\nretry_share = nan", "remote.retry_share is NaN"),
    ] {
        check_error(remote, file, expected);
    }
    check_error(&format!("{remote} --engine embedded"), "", "model.engine is for a model in this process");
    for (file, expected) in [
        ("[remote]\nprotocol = 'oip-grpc'", "remote.protocol without remote.hosts"),
        ("[metrics]\nhost = '127.0.0.1'", "metrics.host without metrics.port"),
        ("[source]\nstart = 'latest'", "source.start is for topics, and records come from a.csv"),
        ("[source]\ninstance = 'one'", "source.instance is for topics"),
        ("[sink]\nkeep_partition = true", "sink.keep_partition is for topics, and answers go to b.jsonl"),
        ("[delivery]\ntransactional_id = 't'", "delivery.transactional_id is for topics"),
        ("[window]\ninput = 'x'\nrows = 2\nchangelog = 'c'", "window.changelog is for topics"),
        (
            "[[join]]\nname = 'a'\nfrom = 'a'\nstore = 's'\n[[join]]\nname = 'b'\nfrom = 'b'\nstore = './s'",
            "join 'b' has the store of 'a'",
        ),
    ] {
        check_error(FILES, file, expected);
    }
    resolved(FILES, "[window]\ninput = 'x'\nrows = 2\nchangelog = 'none'").unwrap();
    resolved(&format!("{FILES} --host 127.0.0.1 --metrics_port 9100"), "").unwrap();
}

#[cfg(feature = "kafka")]
#[test]
fn what_other_sections_decide_is_not_said_of_clients() {
    let topics = "--from kafka://a/in --to kafka://a/out --model NET";
    for (file, expected) in [
        ("[kafka.connection]\nbrokers = 'b'", "kafka.connection.brokers is said by source.from and sink.to"),
        ("[kafka.source]\ngroup = 'g'", "kafka.source.group is said by source.group"),
        ("[kafka.source]\nstart = 'latest'", "kafka.source.start is said by source.start"),
        ("[kafka.sink]\nchangelog = 'c'", "kafka.sink.changelog is said by window.changelog"),
        (
            "[kafka.sink.transactions]\nid = 't'",
            "kafka.sink.transactions.id is said by delivery.transactional_id",
        ),
        ("[source]\nheader = false", "source.header is for files, and records come from kafka://a:9092/in"),
    ] {
        check_error(topics, file, expected);
    }
    resolved(topics, "[kafka.sink.transactions]\ntimeout_ms = 5000").unwrap();
    for (key, said) in [("session_timeout_ms", "6000"), ("assignment", "'range'")] {
        let with = |protocol: &str| format!("[kafka.source]\nprotocol = '{protocol}'\n{key} = {said}");
        let expected =
            format!("kafka.source.{key} is for the classic protocol, and kafka.source.protocol is");
        check_error(topics, &with("consumer"), &expected);
        resolved(topics, &with("classic")).unwrap();
        resolved(topics, &with("auto")).unwrap();
    }
    check_error("--from kafka://a/in --to kafka://b,a/in --model NET", "", "expected two places");
}

#[test]
fn a_dry_run_leaves_stores_alone() {
    let joins = "[[join]]\nname = 'a'\nfrom = 'a.csv'\nstore = 's'\n[[join]]\nname = 'b'\nfrom = 'b.csv'";
    let mut config = resolved(FILES, joins).unwrap();
    let folder = crate::stream::check::aside(&mut config).unwrap();
    let stores: Vec<_> = config.joins.iter().map(|join| join.store.as_deref()).collect();
    assert_eq!(stores, [Some(&*folder.path().join("0")), None]);
}

const GUIDE: &str = include_str!("../../../../../docs/stream.md");

#[test]
fn all_keys_are_documented() {
    let mut n_keys = 0;
    let row = |start: &str| {
        let row = GUIDE.lines().find(|line| line.starts_with(&format!("| `{start}` |")));
        row.unwrap_or_else(|| panic!("docs/stream.md has no row for {start}"))
    };
    let sections = "source sink model remote batch delivery errors retry window join canary shadow replay registry limits metrics";
    let clients =
        ["kafka.connection", "kafka.source", "kafka.sink"].into_iter().filter(|_| cfg!(feature = "kafka"));
    for section in sections.split(' ').chain(clients) {
        if section == "registry" && cfg!(not(feature = "kafka")) {
            continue;
        }
        let heading = if section == "join" { format!("[[{section}]]") } else { format!("[{section}]") };
        let said = row(&heading);
        // What is wrong names all that would be right.
        let error = File::parse(&format!("{heading}\nno-such-key = 1")).unwrap_err().to_string();
        let keys: Vec<_> = error.split('`').skip(3).step_by(2).collect();
        assert!(!keys.is_empty(), "{error}");
        for key in keys {
            let is_elsewhere = toml::from_str::<Table>(&format!("{heading}\n{key} = 1")).is_ok_and(|table| {
                contradictions::check_said(&Sections::default(), &table)
                    .is_err_and(|error| error.to_string().contains("is said by"))
            });
            let is_class = section == "errors" && GUIDE.contains(&format!("\n| `{key}` | "));
            let is_same = section == "shadow" && row("[canary]").contains(&format!("`{key}`"));
            let is_there = said.contains(&format!("`{key}`")) || said.contains(&format!("`{key}."));
            assert!(
                is_elsewhere || is_class || is_same || is_there,
                "docs/stream.md: {heading} lacks `{key}`"
            );
            n_keys += 1;
        }
    }
    assert!(n_keys > 80, "{n_keys}");
}

#[test]
fn all_flags_are_documented() {
    use clap::CommandFactory;
    let command = Cli::command();
    let stream = command.find_subcommand("stream").unwrap();
    for flag in stream.get_arguments().filter_map(|argument| argument.get_long()) {
        let is_there = ["`", " "].iter().any(|end| GUIDE.contains(&format!("`--{flag}{end}")));
        assert!(is_there, "docs/stream.md does not name --{flag}");
    }
}
