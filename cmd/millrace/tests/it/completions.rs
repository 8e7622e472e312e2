use crate::run::{millrace, run};

#[tokio::test]
async fn every_shell_gets_its_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = run(millrace(["completions", shell])).await;
        assert_eq!(ended.code, 0, "{}", ended.err);
        assert!(ended.out.contains("completions"), "{shell}");
    }
}

#[tokio::test]
async fn exit_codes_are_explained_and_kept() {
    let help = run(millrace(["--help"])).await;
    assert_eq!(help.code, 0);
    for line in ["0  done", "2  wrong usage", "4  unavailable", "5  refused"] {
        assert!(help.out.contains(line), "{}", help.out);
    }
    let wrong = run(millrace(["completions", "cobol"])).await;
    assert_eq!(wrong.code, 2, "{}", wrong.err);
    let nowhere = run(millrace(["log", "status"])).await;
    assert_eq!(nowhere.code, 4, "{}", nowhere.err);
    assert!(
        nowhere.err.contains("no `millrace up` is running"),
        "{}",
        nowhere.err
    );
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() {
    use tokio::io::AsyncReadExt as _;
    let mut command = millrace(["completions", "bash"]);
    command.stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Reads a little and closes, as `head` does.
    let mut out = child.stdout.take().unwrap();
    let mut some = [0; 16];
    out.read_exact(&mut some).await.unwrap();
    drop(out);
    assert!(child.wait().await.unwrap().success());
}
