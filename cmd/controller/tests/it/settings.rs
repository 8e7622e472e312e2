use std::ffi::OsString;

use millrace_controller::{EnvironmentSource, Settings};
use millrace_roles::RebuildBy;
use millrace_runtime::config::{ConfigError, parse_arguments};

fn parse(arguments: &[&str]) -> Result<Settings, ConfigError> {
    let stores = [
        "millrace-controller",
        "--database-url",
        "postgres://127.0.0.1/x",
    ];
    let arguments = stores.iter().chain(arguments);
    parse_arguments(arguments.map(OsString::from))
}

#[test]
fn help_explains_every_setting() {
    let help = parse(&["--help"]).unwrap_err().to_string();
    for variable in [
        "MILLRACE_CONTROLLER_NAMESPACE",
        "MILLRACE_CONTROLLER_CONCURRENCY",
        "MILLRACE_REBUILD_BY",
        "MILLRACE_JOB_IMAGE",
        "MILLRACE_JOB_COMMAND",
        "MILLRACE_JOB_SERVICE_ACCOUNT",
        "MILLRACE_JOB_ENV_FROM",
        "MILLRACE_JOB_CPU",
        "MILLRACE_JOB_MEMORY",
        "MILLRACE_JOB_TTL_SECONDS",
        "MILLRACE_JOB_POD_TEMPLATE",
        "MILLRACE_POD_NAME",
    ] {
        assert!(help.contains(variable), "{variable} is missing in\n{help}");
    }
}

#[test]
fn jobs_need_an_image_and_take_their_environment_from_secrets() {
    let settings = parse(&[]).unwrap();
    assert_eq!(settings.controller.rebuild_by, RebuildBy::Job);
    let refused = settings.controller.job().unwrap_err().to_string();
    assert!(refused.contains("MILLRACE_JOB_IMAGE"), "{refused}");
    let given = [
        "--job-image",
        "i:1",
        "--job-env-from",
        "secret/a,configmap/b",
    ];
    let job = parse(&given).unwrap().controller.job().unwrap();
    let expected = [
        EnvironmentSource::Secret("a".to_owned()),
        EnvironmentSource::ConfigMap("b".to_owned()),
    ];
    assert_eq!(job.environment, expected);
    assert_eq!(job.template, None);
    assert!(parse(&["--job-env-from", "a"]).is_err());
    assert!(parse(&["--concurrency", "0"]).is_err());
}

#[test]
fn a_template_of_pods_is_read_from_its_file() {
    let file = std::env::temp_dir().join(format!("pod-template-{}.json", std::process::id()));
    let read = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let given = [
            "--job-image",
            "i:1",
            "--job-pod-template",
            file.to_str().unwrap(),
        ];
        parse(&given).unwrap().controller.job()
    };
    let template = read(r#"{"spec": {"containers": [{"name": "rebuild"}]}}"#);
    let containers = template.unwrap().template.unwrap().spec.unwrap().containers;
    assert_eq!(containers[0].name, "rebuild");
    for wrong in ["{}", "rebuild", r#"{"spec": {"containers": []}}"#] {
        let refused = read(wrong).unwrap_err().to_string();
        assert!(refused.contains("MILLRACE_JOB_POD_TEMPLATE"), "{refused}");
    }
    std::fs::remove_file(&file).unwrap();
}
