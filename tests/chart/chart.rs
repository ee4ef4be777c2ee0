//! The chart and what Helm makes of it.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use saphyr::{LoadableYamlNode as _, ScalarOwned, YamlOwned};
use serde_json::{Map, Value, json};

/// Names the program, where it is not on the PATH.
const HELM: &str = "HELM";

/// Where the chart is.
pub(crate) const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/helm/pin-sidecar");

/// The oldest Kubernetes that it is for.
pub(crate) const OLDEST: &str = "--kube-version=1.29.0";

/// What the tests install it as.
pub(crate) const RELEASE: &str = "gpu";

/// What everything is called then.
pub(crate) const NAME: &str = "gpu-pin-sidecar";

/// What one operator gives, whatever else.
fn required() -> Value {
    json!({"clientId": "op_example", "secret": {"existingSecret": "pin-api-secret"}})
}

/// The chart, with a Helm to render it.
pub(crate) struct Chart {
    helm: PathBuf,
}

impl Chart {
    /// `None`, and a word, where there is no Helm.
    pub(crate) fn find() -> Option<&'static Self> {
        static CHART: OnceLock<Option<Chart>> = OnceLock::new();
        let chart = CHART.get_or_init(|| {
            let helm = std::env::var_os(HELM).unwrap_or_else(|| "helm".into());
            let helm = PathBuf::from(helm);
            let answers = Command::new(&helm).arg("version").output().is_ok();
            answers.then_some(Self { helm })
        });
        if chart.is_none() {
            devnet::skip_without("Helm (HELM)");
        }
        chart.as_ref()
    }

    /// Runs Helm, with something on its standard input.
    pub(crate) fn helm(&self, arguments: &[&str], input: &str) -> Output {
        let mut helm = Command::new(&self.helm)
            .args(arguments)
            .current_dir(DIRECTORY)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Helm that does not want it hangs up.
        let _ = helm.stdin.take().unwrap().write_all(input.as_bytes());
        helm.wait_with_output().unwrap()
    }

    /// What is installed with these values and those that everybody has to give, or what Helm says about them.
    pub(crate) fn try_render(&self, values: &Value) -> Result<Rendered, String> {
        let mut all = required();
        merge(&mut all, values);
        self.template(RELEASE, &all)
    }

    /// As [`Chart::try_render`], of values that are right.
    pub(crate) fn render(&self, values: &Value) -> Rendered {
        let rendered = self.try_render(values);
        rendered.unwrap_or_else(|said| panic!("{values}: {said}"))
    }

    /// What is installed under a name with these values and no others.
    pub(crate) fn template(&self, release: &str, values: &Value) -> Result<Rendered, String> {
        let arguments = ["template", release, ".", "-n", "nodes", OLDEST, "-f", "-"];
        let output = self.helm(&arguments, &values.to_string());
        if output.status.success() {
            Ok(Rendered::read(String::from_utf8(output.stdout).unwrap()))
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// What is installed with one of the chart's examples.
    pub(crate) fn render_example(&self, example: &Example) -> Rendered {
        let rendered = self.template(RELEASE, &example.values);
        rendered.unwrap_or_else(|said| panic!("{}: {said}", example.name))
    }
}

/// Lays one tree of values over another, as Helm does; but `null` is kept, for Helm to take it as it does.
fn merge(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (name, value) in over {
                merge(under.entry(name).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}

/// One of the chart's files of values.
pub(crate) struct Example {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) values: Value,
}

/// All of them.
pub(crate) fn examples() -> Vec<Example> {
    let mut found: Vec<_> = fs::read_dir(Path::new(DIRECTORY).join("ci"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| Example {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            values: one_document(&fs::read_to_string(&path).unwrap()),
            path,
        })
        .collect();
    assert!(!found.is_empty());
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

/// What Helm has rendered.
#[derive(Debug)]
pub(crate) struct Rendered {
    pub(crate) text: String,
    pub(crate) objects: Vec<Value>,
}

impl Rendered {
    fn read(text: String) -> Self {
        let mut objects = documents(&text);
        objects.retain(|object| !object.is_null());
        Self { text, objects }
    }

    /// The objects of a kind; hooks are none of them.
    pub(crate) fn all(&self, kind: &str) -> Vec<&Value> {
        let installed = self.objects.iter().filter(|object| {
            object["kind"] == kind && object["metadata"]["annotations"]["helm.sh/hook"].is_null()
        });
        installed.collect()
    }

    /// The one object of a kind.
    pub(crate) fn one(&self, kind: &str) -> &Value {
        match self.all(kind)[..] {
            [object] => object,
            ref several => panic!("{} objects are {kind}:\n{}", several.len(), self.text),
        }
    }

    /// What makes the pods.
    pub(crate) fn workload(&self) -> &Value {
        let kinds = ["StatefulSet", "Deployment", "DaemonSet"];
        let mut found = kinds.iter().flat_map(|kind| self.all(kind));
        let workload = found.next().unwrap();
        assert!(found.next().is_none(), "{}", self.text);
        workload
    }

    /// What each pod is made from.
    pub(crate) fn template(&self) -> &Value {
        &self.workload()["spec"]["template"]
    }

    /// What each pod is to be.
    pub(crate) fn pod(&self) -> &Value {
        &self.template()["spec"]
    }

    /// A container of the pod, native sidecars included.
    pub(crate) fn container(&self, name: &str) -> &Value {
        let lists = ["initContainers", "containers"].map(|list| &self.pod()[list]);
        let mut all = lists.iter().filter_map(|list| list.as_array()).flatten();
        all.find(|container| container["name"] == name)
            .unwrap_or_else(|| panic!("there is no container {name}:\n{}", self.text))
    }

    /// A variable of a container: its value, or where it comes from.
    pub(crate) fn variable(&self, container: &str, name: &str) -> &Value {
        let env = self.container(container)["env"].as_array().unwrap();
        match env.iter().find(|variable| variable["name"] == name) {
            Some(variable) if variable["value"].is_null() => &variable["valueFrom"],
            Some(variable) => &variable["value"],
            None => &Value::Null,
        }
    }
}

/// The chart's own version, and the product's that it installs.
pub(crate) fn versions() -> (String, String) {
    let about = fs::read_to_string(Path::new(DIRECTORY).join("Chart.yaml")).unwrap();
    let about = one_document(&about);
    let version = |name: &str| about[name].as_str().unwrap().to_owned();
    (version("version"), version("appVersion"))
}

/// The only document of some YAML.
pub(crate) fn one_document(text: &str) -> Value {
    let mut documents = documents(text);
    assert_eq!(documents.len(), 1);
    documents.remove(0)
}

fn documents(text: &str) -> Vec<Value> {
    let documents = YamlOwned::load_from_str(text).unwrap();
    documents.iter().map(to_json).collect()
}

fn to_json(yaml: &YamlOwned) -> Value {
    match yaml {
        YamlOwned::Value(scalar) => match scalar {
            ScalarOwned::Null => Value::Null,
            ScalarOwned::Boolean(flag) => json!(flag),
            ScalarOwned::Integer(number) => json!(number),
            ScalarOwned::FloatingPoint(number) => json!(number.0),
            ScalarOwned::String(text) => json!(text),
        },
        YamlOwned::Sequence(items) => items.iter().map(to_json).collect(),
        YamlOwned::Mapping(fields) => {
            let fields = fields.iter().map(|(name, value)| {
                let name = name.as_str().expect("a field's name is text");
                (name.to_owned(), to_json(value))
            });
            Value::Object(fields.collect::<Map<_, _>>())
        }
        other => panic!("what is {other:?} to Kubernetes?"),
    }
}
