//! Policy files: lists, pods in YAML and JSON, run lines, reports.

use kcap::combine::check::{Policy, against_policy};
use kcap::report::Cap;

use crate::rendered;

/// Takes a text as a policy.
pub fn policy(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    for container in [None, Some("a")] {
        let policy = Policy::of_text("policy", text, container);
        assert_eq!(
            Policy::of_text("policy", text, container),
            policy,
            "read twice"
        );
        match policy {
            Ok(policy) => read(&policy),
            Err(e) => rendered::error(&e),
        }
    }
}

fn read(policy: &Policy) {
    rendered::check(&against_policy(policy, &[], true));
    // The same as a list.
    if policy.allowed.iter().all(|cap| cap.name().is_some()) {
        let names: Vec<String> = policy.allowed.iter().map(Cap::to_string).collect();
        let list = format!("# nothing more\n{}", names.join("\n"));
        let list = Policy::of_text("list", &list, None).expect("these are names");
        assert_eq!(list.allowed, policy.allowed);
    }
}
