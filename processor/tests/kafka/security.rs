//! A broker that wants TLS, a client's certificate, a user or rights: right ones give exact results, wrong ones a clear
//! problem and nothing published. Must not test what needs no such broker.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use super::child::Processor;
use super::rig::{Job, Reach, broker_script, eventually};
use super::rights::{Operation, Resource, grant, revoke};

/// What no log and no answer may show.
const SECRETS: [&str; 4] = ["admin-secret", "limited-secret", "not-the-password", "PRIVATE KEY"];
pub(super) const CA: &str = ", tls: {caSecretRef: {name: cluster-ca}}";

/// Where the broker listens and has its certificates, by the names that its script prints.
pub(super) fn broker(name: &str) -> &'static str {
    static BROKER: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    let found = BROKER.get_or_init(|| broker_script(&["start", "test-secured", "--secured"]));
    found.get(name).expect("the script prints it")
}

pub(super) fn sasl(mechanism: &str) -> String {
    format!(", sasl: {{mechanism: {mechanism}, secretRef: {{name: kafka-user}}}}")
}

/// A job that reaches the broker at `listener` by `security`, with the Secrets of `user`.
fn job(test: &str, listener: &str, security: &str, user: &str) -> Job {
    let reach = Reach {
        tests: broker("KAFKA_BOOTSTRAP").to_owned(),
        processor: broker(listener).to_owned(),
        security: security.to_owned(),
    };
    let job = Job::reached(test, 1, reach);
    give_secrets(&job, user);
    job
}

/// Lays out the Secrets of a job, with name and password of `user`.
pub(super) fn give_secrets(job: &Job, user: &str) {
    let read = |name: &str| std::fs::read_to_string(Path::new(broker("KAFKA_TLS_DIR")).join(name)).expect("reads");
    for (secret, key, text) in [
        ("cluster-ca", "ca.crt", read("ca.crt")),
        ("client", "tls.crt", read("client.crt")),
        ("client", "tls.key", read("client.key")),
        ("kafka-user", "username", user.to_owned()),
        ("kafka-user", "password", format!("{user}-secret\n")),
    ] {
        put(job, secret, key, &text);
    }
}

fn put(job: &Job, secret: &str, key: &str, text: &str) {
    let directory = job.directory("secrets").join(secret);
    std::fs::create_dir_all(&directory).expect("creates");
    std::fs::write(directory.join(key), text).expect("writes");
}

fn start(job: &Job) -> Processor {
    start_assigned(job, "--assign-all")
}

/// Starts a processor that is given its tasks by this.
fn start_assigned(job: &Job, by: &str) -> Processor {
    let secrets = job.directory("secrets");
    let secrets = secrets.to_str().expect("text");
    // Everything that is ever logged, for the test that nothing of it is secret.
    let flags = [by, "--secrets-dir", secrets, "--log", "trace,h2=off,hyper=off"];
    job.start_with("data", &flags, None, "")
}

fn assert_nothing_secret(processor: &Processor) {
    let log = std::fs::read_to_string(&processor.log).expect("a log");
    let status = processor.status().expect("answers").to_string();
    assert!(log.contains("processor started"), "{log}");
    for secret in SECRETS {
        assert!(!log.contains(secret), "the log shows {secret}");
        assert!(!status.contains(secret), "{status}");
    }
}

#[test]
fn results_are_exact_over_tls_mutual_tls_and_every_mechanism_and_no_secret_is_logged() {
    let mutual = ", tls: {caSecretRef: {name: cluster-ca}, certSecretRef: {name: client}}";
    let named = ", sasl: {mechanism: ScramSha512, username: admin, secretRef: {name: kafka-user}}";
    let ways = [
        ("KAFKA_TLS_BOOTSTRAP", CA.to_owned()),
        ("KAFKA_MTLS_BOOTSTRAP", mutual.to_owned()),
        ("KAFKA_SASL_TLS_BOOTSTRAP", format!("{CA}{}", sasl("Plain"))),
        ("KAFKA_SASL_TLS_BOOTSTRAP", format!("{CA}{}", sasl("ScramSha256"))),
        ("KAFKA_SASL_TLS_BOOTSTRAP", format!("{CA}{}", sasl("ScramSha512"))),
        ("KAFKA_SASL_BOOTSTRAP", named.to_owned()),
    ];
    let jobs = ways.map(|(listener, security)| {
        let job = job("secured", listener, &security, "admin");
        job.create_topic(&job.name);
        job.produce(600);
        let processor = start(&job);
        (job, processor)
    });
    for (job, processor) in &jobs {
        job.assert_exact();
        assert_nothing_secret(processor);
    }
}

#[test]
fn a_connection_that_is_refused_names_the_field_and_the_key_and_publishes_nothing() {
    let tls = |job: &Job| put(job, "cluster-ca", "ca.crt", &other_authority());
    let password = |job: &Job| put(job, "kafka-user", "password", "not-the-password");
    let no_key = |job: &Job| std::fs::remove_file(job.directory("secrets/client/tls.key")).expect("removes");
    let nothing = |_: &Job| {};
    let user = "Secret kafka-user keys username and password (spec.source.kafka.sasl.secretRef)";
    let mutual = ", tls: {caSecretRef: {name: cluster-ca}, certSecretRef: {name: client}}";
    type Spoil<'a> = &'a dyn Fn(&Job);
    let cases: [(&str, String, Spoil<'_>, &str); 7] = [
        (
            "KAFKA_SASL_TLS_BOOTSTRAP",
            format!("{CA}{}", sasl("Plain")),
            &password,
            user,
        ),
        ("KAFKA_SASL_BOOTSTRAP", sasl("ScramSha512"), &password, user),
        (
            "KAFKA_TLS_BOOTSTRAP",
            CA.to_owned(),
            &tls,
            "Secret cluster-ca key ca.crt (spec.source.kafka.tls.caSecretRef)",
        ),
        (
            "KAFKA_MTLS_BOOTSTRAP",
            CA.to_owned(),
            &nothing,
            "certSecretRef; none is declared",
        ),
        (
            "KAFKA_MTLS_BOOTSTRAP",
            mutual.to_owned(),
            &no_key,
            "Secret client key tls.key (spec.source.kafka.tls.certSecretRef) is missing",
        ),
        (
            "KAFKA_TLS_BOOTSTRAP",
            String::new(),
            &nothing,
            "declare spec.source.kafka.tls",
        ),
        (
            "KAFKA_SASL_BOOTSTRAP",
            String::new(),
            &nothing,
            "declare spec.source.kafka.sasl",
        ),
    ];
    let jobs = cases.map(|(listener, security, spoil, part)| {
        let job = job("refused", listener, &security, "admin");
        job.create_topic(&job.name);
        job.produce(600);
        spoil(&job);
        let processor = start(&job);
        (job, processor, part)
    });
    for (job, processor, part) in &jobs {
        let message = processor.await_problem("KafkaUnauthorized");
        assert!(message.contains(part), "{part}: {message}");
        assert!(!job.has_topic(&format!("{}-out", job.name)), "{message}");
        assert_nothing_secret(processor);
    }
    // A Secret that is put right is read again, without anybody's restart.
    let (job, _, _) = &jobs[0];
    put(job, "kafka-user", "password", "admin-secret");
    job.assert_exact();
}

fn other_authority() -> String {
    std::fs::read_to_string(Path::new(broker("KAFKA_TLS_DIR")).join("other-ca.crt")).expect("reads")
}

#[test]
fn a_secret_without_a_directory_is_a_bad_flag() {
    let job = job("nowhere", "KAFKA_TLS_BOOTSTRAP", CA, "admin");
    let mut processor = job.start("data");
    eventually("the processor ends", || {
        if processor.has_ended() {
            Ok(())
        } else {
            Err("it runs".to_owned())
        }
    });
    let log = processor.log_text();
    assert!(
        log.contains("--secrets-dir") && log.contains("cluster-ca/ca.crt"),
        "{log}"
    );
}

/// Waits for a problem, then grants what it asks for.
fn granted(processor: &Processor, problem: &str, resource: Resource<'_>, operation: Operation) {
    let message = eventually(problem, || {
        let message = processor.await_problem("KafkaUnauthorized");
        if message.contains(problem) {
            Ok(message)
        } else {
            Err(message)
        }
    });
    assert!(message.contains("the user of Secret kafka-user"), "{message}");
    grant(broker("KAFKA_BOOTSTRAP"), resource, operation);
}

#[test]
fn each_missing_right_is_named_with_its_topic_and_granting_it_is_enough() {
    use Operation::{Create, Describe, Read, Write};
    let job = job("rights", "KAFKA_SASL_BOOTSTRAP", &sasl("ScramSha256"), "limited");
    job.create_topic(&job.name);
    job.produce(600);
    let [control, out, dead] = ["control", "out", "dead"].map(|suffix| format!("{}-{suffix}", job.name));
    let ids = format!("{}/", job.name);
    let [source, control, out, dead] = [&job.name, &control, &out, &dead].map(|name| Resource::Topic(name));
    let processor = start(&job);
    for operation in [Describe, Create] {
        grant(broker("KAFKA_BOOTSTRAP"), dead, operation);
    }
    let name = &job.name;
    for (problem, resource, operation) in [
        (format!("no right to describe topic {name}:"), source, Describe),
        (format!("no right to describe topic {name}-control:"), control, Describe),
        (format!("no right to create topic {name}-control:"), control, Create),
        (format!("no right to describe topic {name}-out:"), out, Describe),
        (format!("no right to create topic {name}-out:"), out, Create),
        (format!("no right to read topic {name}-control:"), control, Read),
        (
            format!("no right to use transactional id {name}/"),
            Resource::TransactionalIds(&ids),
            Write,
        ),
        (format!("no right to write topic {name}-control:"), control, Write),
        (format!("no right to read topic {name}:"), source, Read),
    ] {
        granted(&processor, &problem, resource, operation);
    }
    assert_eq!(job.published().len(), 0, "nothing was published before the last right");
    let no_write = format!("no right to write topic {name}-out:");
    granted(&processor, &no_write, out, Write);
    // A right on the group, which lag tools need, was never granted.
    job.assert_exact();
    revoke(broker("KAFKA_BOOTSTRAP"), out, Write);
    job.produce(600);
    granted(&processor, &no_write, out, Write);
    job.assert_exact();
    assert_nothing_secret(&processor);
}

/// A job of the user `limited` with a source, who may do all but what two stages need, or a group.
fn limited_job(test: &str) -> Job {
    use Operation::{Create, Describe, Read, Write};
    let job = job(test, "KAFKA_SASL_BOOTSTRAP", &sasl("ScramSha256"), "limited");
    job.create_topic(&job.name);
    job.produce(600);
    for suffix in ["", "-control", "-out", "-dead"] {
        let topic = format!("{}{suffix}", job.name);
        for operation in [Describe, Create, Read, Write] {
            grant(broker("KAFKA_BOOTSTRAP"), Resource::Topic(&topic), operation);
        }
    }
    let ids = format!("{}/", job.name);
    grant(broker("KAFKA_BOOTSTRAP"), Resource::TransactionalIds(&ids), Write);
    job
}

#[test]
fn the_group_that_shares_the_tasks_out_is_named_when_its_right_is_missing_and_granting_it_is_enough() {
    let job = limited_job("grouprights");
    let processor = start_assigned(&job, "--assign-group");
    let group = format!("{}-tasks", job.name);
    let problem = format!("no right to join group {group}:");
    granted(&processor, &problem, Resource::Group(&group), Operation::Read);
    job.assert_exact();
    let status = processor.status().expect("answers");
    assert!(status["problem"].is_null(), "{status}");
    assert_nothing_secret(&processor);
}

#[test]
fn two_stages_need_rights_on_the_topic_between_them_and_without_that_to_delete_only_its_growth_is_told() {
    use Operation::{Create, Delete, Describe, Read, Write};
    let job = limited_job("stagerights").in_two_stages(1);
    let between = format!("{}-shuffle", job.name);
    let processor = start(&job);
    let shuffle = Resource::Topic(&between);
    for (verb, operation) in [
        ("describe", Describe),
        ("create", Create),
        ("read", Read),
        ("write", Write),
    ] {
        granted(
            &processor,
            &format!("no right to {verb} topic {between}:"),
            shuffle,
            operation,
        );
    }
    job.assert_exact();
    processor.operate("/v1/checkpoint?id=one");
    let told = |log: &str| log.contains(&format!("no right to delete records of topic {between}:"));
    eventually("the growth is told", || {
        let log = std::fs::read_to_string(&processor.log).map_err(|error| error.to_string())?;
        if log.contains("ShuffleNotTrimmed") && told(&log) {
            Ok(())
        } else {
            Err(processor.log_text())
        }
    });
    let counted = r#"streamagg_errors_total{class="retry",kind="ShuffleNotTrimmed",task="0"}"#;
    eventually("it is counted", || match processor.counted(counted) {
        count if count >= 1 => Ok(()),
        _ => Err(processor.metrics()),
    });
    grant(broker("KAFKA_BOOTSTRAP"), shuffle, Delete);
    job.produce(600);
    job.assert_exact();
    processor.operate("/v1/checkpoint?id=two");
    eventually("the topic is trimmed", || match job.offsets(&between, 0).0 {
        0 => Err(processor.log_text()),
        _ => Ok(()),
    });
}
