use super::*;

#[test]
fn smoke() {
    let parsed = parse(b"FROM a AS B\nRUN cat <<'EOF' > /x\nx\nEOF\n").expect("it is valid");
    assert_eq!(parsed.stages[0].name.as_deref(), Some("b"));
    assert_eq!(parsed.stages[0].instructions[0].end_line, 4);
}
