//! Every kind of problem is explained in `docs/problems.md`.

use std::{collections::BTreeSet, fs, path::Path};

use millrace_http::types;

use crate::demo::{Server, problem};

/// The names in `ProblemType::new("…` of every crate, so that no list can forget one.
fn in_code(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            in_code(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for rest in text.split("ProblemType::new(").skip(1) {
                let name = rest
                    .trim_start()
                    .strip_prefix('"')
                    .and_then(|rest| rest.split('"').next());
                found.extend(name.map(str::to_owned));
            }
        }
    }
}

#[test]
fn every_problem_is_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read_to_string(root.join("docs/problems.md")).unwrap();
    let explained: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|title| title.trim_matches('`').to_owned())
        .collect();
    let mut named: BTreeSet<String> = types::ALL
        .iter()
        .map(|kind| kind.slug().to_owned())
        .collect();
    for part in ["pkg", "cmd"] {
        for entry in fs::read_dir(root.join(part)).unwrap() {
            in_code(&entry.unwrap().path().join("src"), &mut named);
        }
    }
    assert_eq!(
        named, explained,
        "docs/problems.md has a section `## <name>` for each problem"
    );
}

#[test]
fn names_and_statuses_are_sound() {
    for kind in types::ALL {
        let name = kind.slug();
        assert!(
            name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
            "{name}"
        );
        assert!((400..600).contains(&kind.status()), "{name}");
    }
}

#[tokio::test]
async fn a_type_leads_to_its_explanation() {
    let (server, _) = Server::demo().await;
    for kind in types::ALL {
        let answer = server
            .get(&format!("/problems/{}", kind.slug()))
            .send()
            .await
            .unwrap();
        let text = answer.text().await.unwrap();
        assert!(text.starts_with(&format!("{}. ", kind.status())), "{text}");
    }
    problem(
        server.get("/problems/unheard-of").send().await.unwrap(),
        404,
        "not-found",
    )
    .await;
    server.stop().await;
}
