//! The HTML page in a real Chromium, from a file: what it shows, that nothing in a report becomes
//! anything but text, how fast it is, and that it can be used by keyboard, by readers of screens, on
//! narrow screens and on paper.
//!
//! Needs Chromium, which `KCAP_CHROMIUM` names where it is not in `PATH`. `KCAP_AXE` names the script
//! of axe-core, the rules of which are applied where it is there.

#[path = "pages/browser.rs"]
mod browser;
#[path = "pages/reports.rs"]
mod reports;

use std::{env, fs, path::PathBuf, time::Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use browser::Browser;

/// Largest page, in bytes.
const LARGEST: u64 = 5_000_000;
/// Most milliseconds until it can be used, and until a key that filters is answered.
const INTERACTIVE: f64 = 1000.0;
const KEYSTROKE: f64 = 100.0;

/// A page in a folder of its own.
struct Made {
    folder: TempDir,
    page: PathBuf,
}

impl Made {
    fn of<T: serde::Serialize>(reports: &[T], arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("page.html");
        let inputs = folder.path().join("reports");
        reports::write(&inputs, reports);
        match reports {
            [_] => reports::page(&page, arguments, &[&inputs.join("00000.json")]),
            _ => reports::page(&page, arguments, &[&inputs]),
        }
        Self { folder, page }
    }
}

fn corpus() -> Made {
    Made::of(&reports::corpus(), &["--profiles", "4"])
}

fn one() -> Made {
    Made::of(&[reports::one("x-php-app")], &[])
}

#[test]
fn one_report_is_answered_first_and_then_line_by_line() {
    let made = one();
    let browser = Browser::start();
    browser.open(&made.page, "");
    assert_eq!(
        browser.text("document.querySelector('h1').textContent"),
        "corpus/x-php-app/Dockerfile"
    );
    let set = browser.text("document.querySelector('.answer .set').innerText");
    for cap in ["CHOWN", "FOWNER", "FSETID", "SETGID", "SETUID"] {
        assert!(set.contains(cap), "{set}");
    }
    assert!(set.contains("drops 9 of today's 14"), "{set}");
    // In this order from the top.
    let tops = "['h1', '.answer .set', '#apply', '.source', '.facts'].map((s) => \
                document.querySelector(s).getBoundingClientRect().top)";
    let tops: Vec<f64> = serde_json::from_value(browser.eval(tops)).unwrap();
    assert!(tops.is_sorted(), "{tops:?}");
    // Beside the lines: what forces each, and what would avoid it.
    let needs = browser.text("document.querySelector('.why').innerText");
    for what in ["CHOWN line 5", "without it: build fails", "Avoid Line 5"] {
        assert!(needs.contains(what), "{what}: {needs}");
    }
    // The margin beside a line.
    let margin = "[...document.querySelectorAll('.listing tbody tr')].find((tr) => \
                  tr.cells[0].innerText === '10').innerText";
    let margin = browser.text(margin);
    assert!(
        margin.contains("RUN su -s") && margin.contains("SETUID"),
        "{margin}"
    );
    // And from there to the evidence.
    browser.eval("[...document.querySelectorAll('.listing .margin a')].find((a) => a.innerText === 'SETUID').click()");
    browser.until("document.getElementById('why').innerText.startsWith('SETUID')");
    let why = browser.text("document.querySelector('.why').textContent");
    assert!(
        why.contains("setuid") && why.contains("Without it") && why.contains("granted"),
        "{why}"
    );
    assert_eq!(
        browser.text("location.hash"),
        "#d=corpus%2Fx-php-app%2FDockerfile&line=10&cap=SETUID"
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn proofs_and_replays_are_shown() {
    let mut proved = serde_json::to_value(reports::one("copy-chown")).unwrap();
    proved["basis"] = "proved".into();
    proved["proof"] = json!({"state": "proved", "untried": [], "builds": 5, "kept": 0, "references": 2,
        "seconds": 61.0, "build_seconds": 100.0, "flaky": false, "noise": [], "image": null,
        "repeat": {"command": [], "container": [], "executor": null, "context_sha256": null, "bases": {},
            "bases_from": "kept", "cache": "off"}});
    proved["capabilities"][0]["proof"] = json!({"outcome": "failed", "step": 4, "tolerated": [],
        "detail": "chown /srv: operation not permitted"});
    proved["trials"] = json!([{"set": ["FOWNER"], "outcome": "failed", "seconds": 9.5,
        "differs": ["chown /srv: operation not permitted"], "purpose": "without CHOWN"}]);
    let made = Made::of(&[proved], &[]);
    let browser = Browser::start();
    browser.open(&made.page, "#cap=CHOWN");
    let why = browser.text("document.querySelector('.why').innerText");
    assert!(
        why.contains("A replay without it: the build failed. chown /srv"),
        "{why}"
    );
    let facts = browser.text("document.querySelector('.facts').innerText");
    assert!(facts.contains("5 builds in 1m01s"), "{facts}");
    let trials = browser.text("document.querySelector('.trials').textContent");
    assert!(
        trials.contains("1 replay") && trials.contains("without CHOWN"),
        "{trials}"
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn what_was_not_seen_is_said_first() {
    let mut lost = serde_json::to_value(reports::one("x-php-app")).unwrap();
    lost["complete"] = false.into();
    lost["loss"]["checks"] = 7.into();
    lost["interrupted"] = true.into();
    lost["subject"]["late"] = true.into();
    lost["coverage"]["cached"] = 1.into();
    lost["steps"][7]["state"] = "cached".into();
    let made = Made::of(&[lost], &[]);
    let browser = Browser::start();
    browser.open(&made.page, "");
    let warnings = browser
        .text("[...document.querySelectorAll('.warning')].map((p) => p.innerText).join('\\n')");
    for what in [
        "Incomplete lost 7 checks",
        "Interrupted",
        "Late",
        "line 3 CACHED, not seen",
    ] {
        assert!(warnings.contains(what), "{what}: {warnings}");
    }
    // Before the set, which is a lower bound then; and nothing to paste.
    let before = "document.querySelector('.warning.bad').getBoundingClientRect().top < \
                  document.querySelector('.set').getBoundingClientRect().top";
    assert_eq!(browser.eval(before), true);
    assert!(
        browser
            .text("document.querySelector('.set').innerText")
            .contains("at least")
    );
    assert_eq!(
        browser.eval("document.getElementById('apply')"),
        Value::Null
    );
    assert!(
        browser
            .text("document.querySelector('.listing').innerText")
            .contains("cached, not seen")
    );
}

#[test]
fn nothing_in_a_report_becomes_anything_but_text() {
    let hostile = reports::hostile();
    let mut other = serde_json::to_value(reports::one("apt-install")).unwrap();
    other["subject"]["dockerfile"] = "b/Dockerfile".into();
    let name = hostile["subject"]["dockerfile"]
        .as_str()
        .unwrap()
        .to_owned();
    for reports in [vec![hostile.clone()], vec![hostile, other]] {
        let made = Made::of(&reports, &[]);
        let size = fs::metadata(&made.page).unwrap().len();
        assert!(size < LARGEST, "{size}");
        let text = fs::read_to_string(&made.page).unwrap();
        // One script that runs, one that is data, and no comment.
        let count = |what: &str| text.to_lowercase().matches(what).count();
        assert_eq!(
            (count("<script"), count("</script"), count("<!--")),
            (2, 2, 0)
        );
        let kept = text
            .chars()
            .find(|c| matches!(c, '\0' | '\u{1b}' | '\u{202e}' | '\u{2028}'));
        assert_eq!(kept, None);
        let browser = Browser::start();
        browser.open(&made.page, "");
        if reports.len() > 1 {
            let link = "[...document.querySelectorAll('#rows a')].find((a) => a.innerText.includes('onerror') || a.innerText.includes('broken'))";
            browser.eval(&format!("{link}.click()"));
            browser.until("document.querySelector('.source') !== null");
        }
        let shown = browser.text("document.querySelector('#build h1').textContent");
        assert!(
            shown.contains("</script><!-- <script>") && shown.contains("\\u{202e}txet"),
            "{shown}"
        );
        assert!(!shown.contains('\u{202e}') && name.contains('\u{202e}'));
        // Every view and every capability of it.
        let links = browser
            .eval("document.querySelectorAll('#build a').length")
            .as_u64()
            .unwrap();
        assert!(links > 10, "{links}");
        for at in 0..links.min(60) {
            browser.eval(&format!(
                "document.querySelectorAll('#build a')[{at}]?.click()"
            ));
        }
        if reports.len() > 1 {
            browser.eval("location.hash = ''");
            browser.until("!document.getElementById('overview').hidden");
            browser.eval("document.querySelector('#filters a.button').click()");
            browser.until("document.querySelector('.compare') !== null");
        }
        assert_eq!(
            browser.eval("document.querySelectorAll('img, iframe, object, svg, link').length"),
            0
        );
        assert_eq!(browser.eval("document.scripts.length"), 2);
        assert_ne!(browser.text("document.title"), "broken");
        assert_eq!(browser.complaints(), Vec::<String>::new());
    }
}

#[test]
fn a_fragment_cannot_bring_anything_in() {
    let made = corpus();
    let browser = Browser::start();
    for fragment in [
        "#d=%3Cimg%20src%3Dx%20onerror%3Ddocument.title%3D1%3E&cap=%3Cscript%3E",
        "#d=corpus%2Fcopy-chown%2FDockerfile&cap=%3Cimg%20src%3Dx%3E&line=99999999999999",
        "#a=x&b=y",
        "#q=%3Cb%3E&__proto__=1&d=__proto__",
        "#%E0%A4%A",
    ] {
        browser.open(&made.page, fragment);
        assert_eq!(browser.eval("document.querySelectorAll('img').length"), 0);
        assert_eq!(browser.complaints(), Vec::<String>::new(), "{fragment}");
    }
}

#[test]
fn two_hundred_dockerfiles_open_and_filter_without_delay() {
    let reports = reports::many(200, 20);
    assert!(reports.iter().all(|report| report.capabilities.len() >= 20));
    let made = Made::of(&reports, &[]);
    let size = fs::metadata(&made.page).unwrap().len();
    assert!(size <= LARGEST, "{size}");
    let browser = Browser::start();
    // The first of a few that is quick enough: others share the machine.
    let ready = || -> f64 {
        browser.open(&made.page, "");
        let ready = "Math.max(performance.getEntriesByName('kcap-ready')[0].startTime, \
                     performance.getEntriesByType('navigation')[0].loadEventEnd)";
        browser.eval(ready).as_f64().unwrap()
    };
    let mut times = Vec::new();
    let quick = (0..10).any(|_| {
        times.push(ready());
        times.last().is_some_and(|time| *time <= INTERACTIVE)
    });
    assert_eq!(
        browser.eval("document.getElementById('rows').rows.length"),
        200
    );
    // From a key to the next frame that shows its answer.
    let typed = "(async () => {
        const field = document.getElementById('filter');
        const times = [];
        for (const query of ['c', 'ch', 'cho', 'chow', 'chown', 'chown ', 'chown s', 'chown su', '']) {
            const start = performance.now();
            field.value = query;
            field.dispatchEvent(new Event('input', { bubbles: true }));
            document.getElementById('rows').offsetHeight;
            times.push(performance.now() - start);
            await new Promise((done) => setTimeout(done, 5));
        }
        return times;
    })()";
    let keys: Vec<f64> = serde_json::from_value(browser.eval(typed)).unwrap();
    let slowest = keys.iter().copied().fold(0.0, f64::max);
    println!(
        "200 Dockerfiles x 20 capabilities: {size} bytes; interactive after {times:.0?} ms; a key is \
         answered after {keys:.1?} ms"
    );
    assert!(quick, "{times:?}");
    assert!(slowest <= KEYSTROKE, "{keys:?}");
    // Nothing is without evidence, and what found no room is said.
    let bare = "JSON.parse(document.getElementById('data').textContent).rows.filter((row) => !row.detail || \
                row.detail.caps.some((c) => c.required && c.evidence.length === 0)).map((r) => [r.name, r.left, r.detail?.caps.map((c) => [c.cap, c.evidence.length, c.more])])";
    assert_eq!(browser.eval(bare), json!([]));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn ten_thousand_reports_are_a_page_of_bounded_size() {
    let some = reports::corpus();
    let folder = tempfile::tempdir().unwrap();
    let inputs = folder.path().join("reports");
    fs::create_dir(&inputs).unwrap();
    for n in 0..10_000 {
        let mut report = some[n % some.len()].clone();
        report.subject.dockerfile = Some(format!("d{n:05}/Dockerfile"));
        report.subject.dockerfile_sha256 = Some(format!("{n:064x}"));
        let text = serde_json::to_vec(&report).unwrap();
        fs::write(inputs.join(format!("{n:05}.json")), text).unwrap();
    }
    let page = folder.path().join("page.html");
    let start = Instant::now();
    reports::page(&page, &[], &[&inputs]);
    let took = start.elapsed();
    let size = fs::metadata(&page).unwrap().len();
    // The most that any child of this test ever held; that one has by far the most to hold.
    let held = peak();
    println!(
        "10,000 reports: {size} bytes in {took:.1?}, at most {} MB held",
        held >> 20
    );
    assert!(size <= LARGEST, "{size}");
    assert!(held < 600 << 20, "{held}");
    let browser = Browser::start();
    browser.open(&page, "");
    assert_eq!(
        browser.eval("document.getElementById('rows').rows.length"),
        1000
    );
    let said = browser.text("document.querySelector('.who .warning').innerText");
    assert!(said.contains("9000 more"), "{said}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// Peak resident memory of the children of this process that ended, in bytes.
fn peak() -> u64 {
    // SAFETY: zeros are a value of the structure, which is filled in.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: it points to a structure of that type.
    let got = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage) };
    assert_eq!(got, 0);
    usage.ru_maxrss as u64 * 1024
}

#[test]
fn the_keyboard_alone_is_enough() {
    let made = corpus();
    let browser = Browser::start();
    browser.open(&made.page, "");
    browser.key("Tab");
    let skip = "document.activeElement.classList.contains('skip')";
    assert_eq!(browser.eval(skip), true);
    let visible = "getComputedStyle(document.activeElement).outlineStyle !== 'none' && \
                   document.activeElement.getBoundingClientRect().left >= 0";
    assert_eq!(browser.eval(visible), true);
    browser.key("Enter");
    assert_eq!(browser.text("document.activeElement.id"), "main");
    browser.tab_to("#filter", 40);
    for key in "php-app setuid".chars() {
        browser.key(&key.to_string());
    }
    let rows = "[...document.querySelectorAll('#rows tr:not([hidden])')].length";
    browser.until(&format!("{rows} === 1"));
    browser.until("document.getElementById('said').textContent.startsWith('1 of 103')");
    browser.tab_to("#rows a", 60);
    browser.key("Enter");
    browser.until("document.activeElement.tagName === 'H1'");
    assert_eq!(
        browser.text("document.activeElement.innerText"),
        "corpus/x-php-app/Dockerfile"
    );
    browser.tab_to(".listing .margin a", 60);
    assert_eq!(browser.eval(visible), true);
    browser.key("Enter");
    browser.until("document.activeElement.id === 'why'");
    browser.tab_to(".why summary", 20);
    browser.key("Enter");
    browser.until("document.activeElement.parentElement.open");
    // Back to all, where the filter still is.
    browser.eval("history.length > 1 && history.go(-2)");
    browser.until("!document.getElementById('overview').hidden");
    browser.until("document.activeElement.id === 'filter'");
    browser.until(&format!("{rows} === 1"));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn fragments_lead_to_places_and_rows_are_sorted() {
    let made = corpus();
    let browser = Browser::start();
    browser.open(
        &made.page,
        "#d=corpus%2Fsetcap-run%2FDockerfile&cap=SETFCAP",
    );
    assert!(
        browser
            .text("document.getElementById('why').innerText")
            .starts_with("SETFCAP")
    );
    assert_eq!(
        browser.eval("document.getElementById('overview').hidden"),
        true
    );
    browser.open(&made.page, "#q=setfcap");
    let shown = browser
        .eval("document.querySelectorAll('#rows tr:not([hidden])').length")
        .as_u64();
    assert_eq!(shown, Some(10));
    let sort = |name: &str| {
        browser.eval(&format!(
            "[...document.querySelectorAll('#matrix thead button')].find((b) => b.innerText === '{name}').click()"
        ));
    };
    browser.open(&made.page, "");
    sort("MKNOD");
    let first = browser.text("document.querySelector('#rows tr').innerText");
    assert!(first.contains("device-nodes"), "{first}");
    assert_eq!(
        browser.eval("document.querySelectorAll('th[aria-sort]').length"),
        1
    );
    // A cell leads to its capability.
    browser.eval("document.querySelector('#rows tr td.N').click()");
    browser.until("document.getElementById('why') !== null");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn two_are_compared() {
    let made = corpus();
    let browser = Browser::start();
    browser.open(
        &made.page,
        "#a=corpus%2Fx-php-app%2FDockerfile&b=corpus%2Fx-nginx-site%2FDockerfile",
    );
    let sets = browser.text("document.querySelector('.sets').innerText");
    for what in ["Both\nCHOWN", "Only the first\nnone", "NET_BIND_SERVICE"] {
        assert!(sets.contains(what), "{what}: {sets}");
    }
    let columns =
        "[...document.querySelectorAll('.instructions tbody tr')].map((tr) => tr.cells.length)";
    let columns: Vec<u64> = serde_json::from_value(browser.eval(columns)).unwrap();
    assert!(
        columns.len() > 8 && columns.iter().all(|n| *n == 2),
        "{columns:?}"
    );
    // Another one is chosen in the page.
    browser.eval(
        "(() => { const choose = document.getElementById('choose-b'); choose.value = \
         [...choose.options].find((o) => o.text === 'corpus/x-php-app/Dockerfile').value; \
         choose.dispatchEvent(new Event('change')); })()",
    );
    browser.until("document.querySelectorAll('.pairs .differs').length === 0");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn it_is_light_and_dark_and_fits_paper() {
    let made = corpus();
    let browser = Browser::start();
    let ground = "getComputedStyle(document.body).backgroundColor";
    let media = |scheme: &str, media: &str| {
        browser.call(
            "Emulation.setEmulatedMedia",
            json!({"media": media, "features": [{"name": "prefers-color-scheme", "value": scheme}]}),
        );
    };
    media("light", "screen");
    browser.open(&made.page, "");
    let light = browser.text(ground);
    media("dark", "screen");
    let dark = browser.text(ground);
    assert_ne!(light, dark);
    let choose = |name: &str| {
        browser.eval(&format!(
            "(() => {{ const t = document.getElementById('theme'); t.value = '{name}'; \
             t.dispatchEvent(new Event('change')); }})()"
        ));
    };
    choose("light");
    assert_eq!(browser.text(ground), light);
    choose("dark");
    // Paper is light whatever the screen is, and has no controls.
    media("dark", "print");
    assert_eq!(browser.text(ground), light);
    let controls = "[...document.querySelectorAll('input, select, .copy')].filter((e) => e.offsetParent).length";
    assert_eq!(browser.eval(controls), 0);
    browser.open(&made.page, "#d=corpus%2Fx-php-app%2FDockerfile");
    let pdf = browser.call("Page.printToPDF", json!({"printBackground": true}));
    let pdf = pdf["data"].as_str().unwrap();
    assert!(
        pdf.starts_with("JVBER") && pdf.len() > 20_000,
        "{}",
        pdf.len()
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_narrow_screen_does_not_scroll_sideways() {
    let many = corpus();
    let one = one();
    let browser = Browser::start();
    let size = |width: u32| {
        browser.call(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": width < 500}),
        );
    };
    for width in [360, 768, 2560] {
        size(width);
        for (made, fragment) in [
            (&many, ""),
            (&many, "#d=corpus%2Fx-redis-gosu%2FDockerfile&line=2"),
            (
                &many,
                "#a=corpus%2Fx-php-app%2FDockerfile&b=corpus%2Fx-nginx-site%2FDockerfile",
            ),
            (&one, ""),
        ] {
            browser.open(&made.page, fragment);
            let wide = browser
                .eval("document.documentElement.scrollWidth")
                .as_u64()
                .unwrap();
            assert!(wide <= u64::from(width), "{wide} of {width} at {fragment}");
        }
    }
}

#[test]
fn without_scripts_the_answer_is_there() {
    let many = corpus();
    let one = one();
    let browser = Browser::start();
    let texts = || {
        let tree = browser.call("Accessibility.getFullAXTree", json!({}));
        let names: Vec<String> = (tree["nodes"].as_array().unwrap().iter())
            .filter_map(|node| Some(node["name"]["value"].as_str()?.to_owned()))
            .collect();
        names.join("\n")
    };
    browser.open_scriptless(&many.page);
    let shown = texts();
    for what in [
        "103 Dockerfiles",
        "3 of 103 did not build",
        "AUDIT_WRITE",
        "corpus/x-redis-gosu/Dockerfile",
        "Profiles",
        "Without scripts",
    ] {
        assert!(shown.contains(what), "{what}");
    }
    browser.open_scriptless(&one.page);
    let shown = texts();
    for what in [
        "corpus/x-php-app/Dockerfile",
        "capabilities: {drop: [ALL]",
        "may lose setgid",
    ] {
        assert!(shown.contains(what), "{what}");
    }
}

#[test]
fn readers_of_screens_find_tables_names_and_places() {
    let made = corpus();
    let browser = Browser::start();
    for fragment in [
        "",
        "#d=corpus%2Fx-php-app%2FDockerfile",
        "#a=corpus%2Fx-php-app%2FDockerfile&b=corpus%2Fx-nginx-site%2FDockerfile",
    ] {
        browser.open(&made.page, fragment);
        let tree = browser.call("Accessibility.getFullAXTree", json!({}));
        let nodes: Vec<&Value> = (tree["nodes"].as_array().unwrap().iter())
            .filter(|node| node["ignored"] == false)
            .collect();
        let of = |role: &str| -> Vec<&&Value> {
            nodes
                .iter()
                .filter(|node| node["role"]["value"] == role)
                .collect()
        };
        assert_eq!((of("main").len(), of("banner").len()), (1, 1), "{fragment}");
        assert!(
            !of("table").is_empty() && of("columnheader").len() > 1,
            "{fragment}"
        );
        assert!(!of("rowheader").is_empty(), "{fragment}");
        for role in [
            "link",
            "button",
            "combobox",
            "searchbox",
            "heading",
            "region",
        ] {
            for node in of(role) {
                let name = node["name"]["value"].as_str().unwrap_or_default();
                assert!(
                    !name.trim().is_empty(),
                    "{role} without a name at {fragment}: {node}"
                );
            }
        }
        let levels = "[...document.querySelectorAll('h1')].filter((h) => h.offsetParent).length";
        assert_eq!(browser.eval(levels), 1, "{fragment}");
    }
}

#[test]
fn axe_finds_no_fault() {
    let Some(axe) = env::var_os("KCAP_AXE").filter(|path| !path.is_empty()) else {
        println!("SKIP: axe-core: set KCAP_AXE to its axe.min.js (npm install axe-core)");
        return;
    };
    let axe = fs::read_to_string(&axe).expect("KCAP_AXE is a file");
    let many = corpus();
    let one = one();
    let hostile = Made::of(&[reports::hostile()], &[]);
    let browser = Browser::start();
    for scheme in ["light", "dark"] {
        browser.call(
            "Emulation.setEmulatedMedia",
            json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}),
        );
        for (made, fragment) in [
            (&many, ""),
            (&many, "#d=corpus%2Fx-redis-gosu%2FDockerfile&cap=CHOWN"),
            (&many, "#d=corpus%2Fmissing-file%2FDockerfile&line=2"),
            (
                &many,
                "#a=corpus%2Fx-php-app%2FDockerfile&b=corpus%2Fx-nginx-site%2FDockerfile",
            ),
            (&one, ""),
            (&hostile, ""),
        ] {
            browser.open(&made.page, fragment);
            browser.eval(&format!("{axe}; 0"));
            let run = "axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'] })\
                       .then((r) => ({ rules: r.passes.length, faults: r.violations.map((v) => v.id + ': ' + v.nodes.length \
                       + ' x ' + v.nodes[0].html.slice(0, 160) + ' ' + (v.nodes[0].any[0]?.message ?? '')) }))";
            let result = browser.eval(run);
            assert!(result["rules"].as_u64() > Some(20), "{result}");
            assert_eq!(result["faults"], json!([]), "{scheme} {fragment}");
        }
    }
}

#[test]
fn the_same_reports_are_the_same_page() {
    let made = corpus();
    let again = made.folder.path().join("again.html");
    reports::page(
        &again,
        &["--profiles", "4"],
        &[&made.folder.path().join("reports")],
    );
    assert_eq!(fs::read(&made.page).unwrap(), fs::read(&again).unwrap());
}
