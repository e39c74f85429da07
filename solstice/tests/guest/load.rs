//! Much output, long lines, strange bytes.

use crate::harness::steps;

#[test]
fn two_hundred_thousand_lines_come_in_order() {
    let ended = steps("- run: seq 1 200000 | sed 's/$/./'").run().code(0);
    let mut expected = 1_u32;
    for line in ended.text.lines() {
        if line.trim() == format!("{expected}.") {
            expected += 1;
        }
    }
    assert_eq!(expected, 200_001);
}

#[test]
fn a_line_of_ten_mebibytes_is_cut_and_harms_nothing() {
    let ended = steps(
        r#"
- run: |
    head -c 10485760 /dev/zero | tr '\0' x; echo
    echo "next line"
    printf 'bytes \377\376 here\n'
    printf 'no line end'
"#,
    )
    .run()
    .code(0)
    .shows("next line\n")
    .shows("no line end");
    let longest = ended.text.lines().map(str::len).max().unwrap();
    assert!((60_000..70_000).contains(&longest), "{longest}");
}
