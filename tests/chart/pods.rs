//! The pod: who is in it, in which order it ends, what it may do, and what it holds.

use serde_json::{Value, json};

use crate::chart::{Chart, Rendered, examples};

fn names(containers: &Value) -> Vec<&str> {
    let containers = containers.as_array().map(Vec::as_slice).unwrap_or_default();
    containers
        .iter()
        .map(|container| container["name"].as_str().unwrap())
        .collect()
}

fn topology(chart: &Chart, topology: &str) -> Rendered {
    match topology {
        "external" => {
            chart.render(&json!({"topology": topology, "ollama": {"url": "http://ollama:11434"}}))
        }
        _ => chart.render(&json!({ "topology": topology })),
    }
}

/// What Pod Security `restricted` asks of a container.
pub(crate) fn assert_restricted(container: &Value) {
    let context = &container["securityContext"];
    let user = context["runAsUser"].as_i64();
    assert!(user.is_some_and(|user| user > 0), "{context}");
    assert_eq!(context["runAsNonRoot"], true);
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
}

#[test]
fn bundled_ends_ollama_after_the_sidecar() {
    let Some(chart) = Chart::find() else { return };
    let rendered = topology(chart, "bundled");
    assert_eq!(names(&rendered.pod()["initContainers"]), ["ollama"]);
    assert_eq!(names(&rendered.pod()["containers"]), ["pin-sidecar"]);
    assert_eq!(rendered.container("ollama")["restartPolicy"], "Always");
    assert!(rendered.container("ollama")["lifecycle"].is_null());
    assert!(rendered.container("pin-sidecar")["restartPolicy"].is_null());
}

#[test]
fn sidecar_has_ollama_wait_for_the_drain() {
    let Some(chart) = Chart::find() else { return };
    let rendered = topology(chart, "sidecar");
    assert_eq!(names(&rendered.pod()["initContainers"]), ["pin-sidecar"]);
    assert_eq!(names(&rendered.pod()["containers"]), ["ollama"]);
    assert_eq!(rendered.container("pin-sidecar")["restartPolicy"], "Always");
    assert!(rendered.container("ollama")["restartPolicy"].is_null());
}

#[test]
fn external_has_no_ollama() {
    let Some(chart) = Chart::find() else { return };
    let rendered = topology(chart, "external");
    assert_eq!(names(&rendered.pod()["initContainers"]), [""; 0]);
    assert_eq!(names(&rendered.pod()["containers"]), ["pin-sidecar"]);
    assert_eq!(
        rendered.variable("pin-sidecar", "PIN_OLLAMA_URL"),
        "http://ollama:11434"
    );
    assert!(!rendered.text.contains("name: models"), "{}", rendered.text);
}

#[test]
fn the_token_is_a_file_from_a_secret_that_exists_and_without_one_there_is_nothing_of_it() {
    let Some(chart) = Chart::find() else { return };
    for kind in ["bundled", "sidecar"] {
        let without = topology(chart, kind);
        assert!(!without.text.contains("admin"), "{}", without.text);
        let given = json!({"topology": kind, "admin": {"existingSecret": "tokens", "key": "page"}});
        let rendered = chart.render(&given);
        let volumes = rendered.pod()["volumes"].as_array().unwrap();
        let of = |name: &str| &volumes.iter().find(|one| one["name"] == name).unwrap()["secret"];
        let token = of("admin-token");
        assert_eq!(token["secretName"], "tokens");
        assert_eq!(token["items"], json!([{"key": "page", "path": "page"}]));
        // Whoever can read the one can read the other.
        assert_eq!(token["defaultMode"], of("secret")["defaultMode"]);
        let mounts = rendered.container("pin-sidecar")["volumeMounts"]
            .as_array()
            .unwrap();
        let mount = mounts
            .iter()
            .find(|one| one["name"] == "admin-token")
            .unwrap();
        let file = format!("{}/page", mount["mountPath"].as_str().unwrap());
        assert_eq!(mount["readOnly"], true);
        assert_eq!(
            rendered.variable("pin-sidecar", "PIN_ADMIN_TOKEN_FILE"),
            file.as_str()
        );
    }
}

#[test]
fn the_model_servers_key_is_a_file_from_a_secret_that_exists_or_that_the_chart_makes() {
    let Some(chart) = Chart::find() else { return };
    let url = json!({"url": "http://vllm:8000"});
    let with_key = |key: Value| {
        let values = json!({"topology": "external", "ollama": url, "backendKey": key});
        chart.render(&values)
    };
    let existing = with_key(json!({"existingSecret": "vllm", "key": "api-key"}));
    let made = with_key(json!({"value": "k3y"}));
    for (rendered, secret, key) in [
        (&existing, "vllm", "api-key"),
        (&made, "gpu-pin-sidecar-backend", "pin_backend_api_key"),
    ] {
        let volumes = rendered.pod()["volumes"].as_array().unwrap();
        let of = |name: &str| &volumes.iter().find(|one| one["name"] == name).unwrap()["secret"];
        let volume = of("backend-key");
        assert_eq!(volume["secretName"], secret);
        assert_eq!(volume["items"], json!([{"key": key, "path": key}]));
        assert_eq!(volume["defaultMode"], of("secret")["defaultMode"]);
    }
    assert!(existing.all("Secret").is_empty());
    let secret = made.one("Secret");
    assert_eq!(secret["metadata"]["name"], "gpu-pin-sidecar-backend");
    assert_eq!(secret["data"], json!({"pin_backend_api_key": "azN5"}));
    // Another key is another pod, as with the API secret that the chart makes.
    let other = with_key(json!({"value": "0ther"}));
    let checksum = |rendered: &Rendered| {
        rendered.template()["metadata"]["annotations"]["checksum/backend-key"].clone()
    };
    assert_ne!(checksum(&made), checksum(&other));
    assert!(checksum(&made).is_string() && checksum(&existing).is_null());
}

#[test]
fn the_pod_has_ten_seconds_more_than_the_drain() {
    let Some(chart) = Chart::find() else { return };
    for (drain, grace) in [(0, 10), (25, 35), (600, 610)] {
        let rendered = chart.render(&json!({"drainTimeoutSeconds": drain}));
        assert_eq!(rendered.pod()["terminationGracePeriodSeconds"], grace);
        let setting = format!("{drain}s");
        assert_eq!(
            rendered.variable("pin-sidecar", "PIN_DRAIN_TIMEOUT"),
            setting.as_str()
        );
    }
    let least = json!({"drainTimeoutSeconds": 100, "terminationGracePeriodSeconds": 105});
    assert_eq!(
        chart.render(&least).pod()["terminationGracePeriodSeconds"],
        105
    );
}

#[test]
fn every_pod_is_hardened() {
    let Some(chart) = Chart::find() else { return };
    for example in examples() {
        let rendered = chart.render_example(&example);
        let (pod, agent) = (rendered.pod(), rendered.container("pin-sidecar"));
        assert_restricted(agent);
        assert_eq!(agent["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(agent["securityContext"]["runAsUser"], 65532);
        assert_eq!(agent["terminationMessagePolicy"], "FallbackToLogsOnError");
        assert_eq!(
            pod["automountServiceAccountToken"], false,
            "{}",
            example.name
        );
        assert_eq!(pod["enableServiceLinks"], false);
        assert_eq!(
            pod["dnsConfig"]["options"][0],
            json!({"name": "ndots", "value": "2"})
        );
        for forbidden in ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"] {
            assert!(pod[forbidden].is_null(), "{}: {forbidden}", example.name);
        }
    }
}

#[test]
fn a_restricted_namespace_admits_the_example_for_it_and_an_external_sidecar() {
    let Some(chart) = Chart::find() else { return };
    for name in ["restricted-values", "external-values"] {
        let all = examples();
        let example = all.iter().find(|example| example.name == name).unwrap();
        let rendered = chart.render_example(example);
        for list in ["initContainers", "containers"] {
            let containers = rendered.pod()[list].as_array();
            containers.into_iter().flatten().for_each(assert_restricted);
        }
        let volumes = rendered.pod()["volumes"].as_array().unwrap();
        assert!(volumes.iter().all(|volume| volume["hostPath"].is_null()));
    }
}

#[test]
fn ollama_is_for_the_pod_alone_and_does_without_privileges() {
    let Some(chart) = Chart::find() else { return };
    for name in ["bundled", "sidecar"] {
        let rendered = topology(chart, name);
        assert_eq!(
            rendered.variable("ollama", "OLLAMA_HOST"),
            "127.0.0.1:11434"
        );
        let ollama = rendered.container("ollama");
        assert!(ollama["ports"].is_null());
        assert_eq!(
            ollama["startupProbe"]["exec"]["command"],
            json!(["ollama", "list"])
        );
        assert_eq!(ollama["securityContext"]["allowPrivilegeEscalation"], false);
        assert_eq!(
            ollama["securityContext"]["capabilities"]["drop"],
            json!(["ALL"])
        );
        assert_eq!(
            ollama["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
    }
}

#[test]
fn an_outage_elsewhere_restarts_nothing_and_takes_no_ollama_out_of_its_service() {
    let Some(chart) = Chart::find() else { return };
    for name in ["bundled", "sidecar", "external"] {
        let rendered = topology(chart, name);
        let agent = rendered.container("pin-sidecar");
        for probe in ["startupProbe", "livenessProbe"] {
            assert_eq!(agent[probe]["httpGet"]["path"], "/healthz", "{name}");
        }
        match name {
            "sidecar" => assert!(agent["readinessProbe"].is_null()),
            _ => assert_eq!(agent["readinessProbe"]["httpGet"]["path"], "/readyz"),
        }
    }
}

#[test]
fn a_probe_is_replaced_as_a_whole_or_left_out() {
    let Some(chart) = Chart::find() else { return };
    let own = json!({"tcpSocket": {"port": 9464}, "periodSeconds": 7});
    let probes = json!({"startup": own, "liveness": false, "readiness": false});
    let rendered = chart.render(&json!({"probes": probes, "ollama": {"probes": probes}}));
    for name in ["pin-sidecar", "ollama"] {
        let container = rendered.container(name);
        assert_eq!(container["startupProbe"], own);
        assert!(container["livenessProbe"].is_null() && container["readinessProbe"].is_null());
    }
}

#[test]
fn the_secret_is_a_directory_that_follows_the_secret() {
    let Some(chart) = Chart::find() else { return };
    for example in examples() {
        let rendered = chart.render_example(&example);
        let mounts = rendered.container("pin-sidecar")["volumeMounts"]
            .as_array()
            .unwrap();
        let mount = mounts
            .iter()
            .find(|mount| mount["name"] == "secret")
            .unwrap();
        let allowed =
            json!({"name": "secret", "mountPath": "/run/secrets/pin-sidecar", "readOnly": true});
        assert_eq!(*mount, allowed, "no subPath, which is never updated");
        let volumes = rendered.pod()["volumes"].as_array().unwrap();
        let volume = volumes
            .iter()
            .find(|volume| volume["name"] == "secret")
            .unwrap();
        let file = rendered
            .variable("pin-sidecar", "PIN_API_SECRET_FILE")
            .as_str()
            .unwrap();
        let path = volume["secret"]["items"][0]["path"].as_str().unwrap();
        assert_eq!(file, format!("/run/secrets/pin-sidecar/{path}"));
        // Nobody else's container has it.
        let mounts = rendered.text.matches("name: secret\n").count();
        assert_eq!(mounts, 2, "{}", example.name);
    }
}

#[test]
fn the_secret_is_readable_for_the_sidecars_user_and_as_few_others_as_can_be() {
    let Some(chart) = Chart::find() else { return };
    let mode = |rendered: &Rendered| {
        rendered.pod()["volumes"][0]["secret"]["defaultMode"]
            .as_i64()
            .unwrap()
    };
    let bundled = topology(chart, "bundled");
    assert_eq!(bundled.pod()["securityContext"]["fsGroup"], 65532);
    assert_eq!(mode(&bundled), 0o440);
    // No group for the files of somebody else's Ollama, and none where the platform gives one itself.
    let sidecar = topology(chart, "sidecar");
    assert!(sidecar.pod()["securityContext"]["fsGroup"].is_null());
    assert_eq!(mode(&sidecar), 0o444);
    let platform = chart.render(&json!({"podSecurityContext": {"fsGroup": null}}));
    assert_eq!(mode(&platform), 0o444);
}

#[test]
fn the_memory_limit_follows_from_what_the_sidecar_may_hold() {
    let Some(chart) = Chart::find() else { return };
    // docs/memory-and-limits.md, in MiB: 10 + 1.25 outbox + queue + 3 frame + capacity * (frame + 3 result).
    let larger = json!({"PIN_OUTBOX_BYTES": "1GiB", "PIN_MAX_FRAME_BYTES": 33_554_432, "PIN_QUEUE_BYTES": "512KiB"});
    for (values, bound) in [
        (json!({}), 274),
        (json!({"capacity": 1}), 154),
        (json!({"capacity": 64}), 2674),
        (
            json!({ "settings": larger }),
            10 + 1280 + 1 + 96 + 4 * (32 + 24),
        ),
    ] {
        let rendered = chart.render(&values);
        let limit = &rendered.container("pin-sidecar")["resources"]["limits"]["memory"];
        let limit: i64 = limit
            .as_str()
            .unwrap()
            .strip_suffix("Mi")
            .unwrap()
            .parse()
            .unwrap();
        assert!(
            (bound * 11 / 10..=bound * 5 / 4).contains(&limit),
            "{values}: {limit} MiB for {bound}"
        );
    }
    let own = chart.render(&json!({"resources": {"limits": {"memory": "1Gi", "cpu": 1}}}));
    let resources = &own.container("pin-sidecar")["resources"];
    assert_eq!(resources["limits"], json!({"memory": "1Gi", "cpu": 1}));
    assert_eq!(resources["requests"]["cpu"], "50m");
}

#[test]
fn gpus_are_ollamas() {
    let Some(chart) = Chart::find() else { return };
    let gpu = json!({"count": 2, "resource": "amd.com/gpu"});
    let limits = json!({"limits": {"memory": "32Gi"}});
    let rendered = chart.render(&json!({"ollama": {"gpu": gpu, "resources": limits}}));
    let wanted = json!({"memory": "32Gi", "amd.com/gpu": 2});
    assert_eq!(rendered.container("ollama")["resources"]["limits"], wanted);
    assert_eq!(rendered.text.matches("amd.com/gpu").count(), 1);
}

#[test]
fn models_are_kept_in_the_way_that_the_kind_allows() {
    let Some(chart) = Chart::find() else { return };
    let kept = |values: Value| {
        let rendered = chart.render(&values);
        let volumes = rendered.pod()["volumes"].as_array().unwrap().clone();
        let volume = volumes
            .into_iter()
            .find(|volume| volume["name"] == "models");
        (volume.unwrap_or_default(), rendered)
    };
    let (volume, set) = kept(json!({}));
    let claim = &set.workload()["spec"]["volumeClaimTemplates"][0];
    assert!(volume.is_null() && set.all("PersistentVolumeClaim").is_empty());
    assert_eq!(claim["metadata"]["name"], "models");
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "50Gi");

    let (volume, deployment) = kept(json!({"kind": "Deployment"}));
    let claim = deployment.one("PersistentVolumeClaim");
    assert_eq!(
        volume["persistentVolumeClaim"]["claimName"],
        claim["metadata"]["name"]
    );
    assert_eq!(
        claim["metadata"]["annotations"]["helm.sh/resource-policy"],
        "keep"
    );

    let host = json!({"hostPath": "/models"});
    let (volume, _) = kept(json!({"kind": "DaemonSet", "ollama": {"persistence": host}}));
    assert_eq!(volume["hostPath"]["path"], "/models");
    let (volume, _) = kept(json!({"ollama": {"persistence": {"existingClaim": "mine"}}}));
    assert_eq!(volume["persistentVolumeClaim"]["claimName"], "mine");
    let (volume, _) = kept(json!({"ollama": {"persistence": {"enabled": false}}}));
    assert_eq!(volume["emptyDir"], json!({}));
}
