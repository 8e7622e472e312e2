//! The roles' settings, from outside.

use crate::run::{millrace, run};

const ROLES: [&str; 3] = ["command", "projector", "query"];

#[tokio::test]
async fn help_explains_every_setting_and_shows_no_secret() {
    for role in ROLES {
        let mut help = millrace(["role", role, "--help"]);
        help.env("DATABASE_URL", "postgres://user:hunter2@host/db");
        let ended = run(help).await;
        assert_eq!(ended.code, 0, "{}", ended.err);
        for part in [
            "[env: DATABASE_URL]",
            "[env: MILLRACE_NAMESPACE]",
            "[default: millrace]",
            "--config",
        ] {
            assert!(ended.out.contains(part), "{role} {part}\n{}", ended.out);
        }
        assert!(!ended.out.contains("hunter2"));
        // Every option says something.
        let bare = ended
            .out
            .lines()
            .zip(ended.out.lines().skip(1))
            .find(|(option, text)| {
                option.trim_start().starts_with("--")
                    && text.trim().is_empty()
                    && !option.contains("  ")
            });
        assert_eq!(bare, None, "{role}");
    }
}

#[tokio::test]
async fn an_unknown_setting_is_an_error_that_names_the_nearest() {
    for role in ROLES {
        let mut wrong = millrace(["role", role]);
        wrong.env("DATABASE_URL", "postgres://user:hunter2@127.0.0.1:1/db");
        wrong.env("MILLRACE_NAMESPAC", "x");
        let ended = run(wrong).await;
        assert_eq!(ended.code, 2);
        assert!(
            ended.err.contains("did you mean `MILLRACE_NAMESPACE`?"),
            "{}",
            ended.err
        );
        assert!(!ended.err.contains("hunter2"));
    }
}

#[tokio::test]
async fn a_wrong_database_url_is_refused_without_being_shown() {
    for role in ROLES {
        let mut wrong = millrace(["role", role, "--admin-listen", "127.0.0.1:0"]);
        wrong.env("DATABASE_URL", "not-a-url-hunter2");
        if role != "projector" {
            wrong.env("MILLRACE_LISTEN", "127.0.0.1:0");
        }
        let ended = run(wrong).await;
        assert_eq!(ended.code, 1, "{role} {}", ended.err);
        assert!(!ended.err.contains("hunter2"), "{role} {}", ended.err);
    }
}
