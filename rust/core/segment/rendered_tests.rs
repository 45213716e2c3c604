//! Tests of the rendered path: hostile templates, what is the template's and what is data, and
//! random templates.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::jinja::Template;
use super::{Controls, Fields, Rendered};
use crate::schema::{DropReason, Refusal, Role};

fn render(text: &str, controls: &[&str], record: &Value) -> Result<(Rendered, u64), Refusal> {
    let template =
        Template::parse(text, &Controls::new(controls.iter().copied()), &Vec::new()).unwrap();
    let mut out = Rendered::default();
    template.render(&fields_of(record), false, &mut out).map(|_| (out, template.unmarked()))
}

fn fields_of(record: &Value) -> Fields {
    crate::read::parse_json(record.to_string().as_bytes()).unwrap()
}

/// The text with its data in brackets.
fn shown(rendered: &Rendered) -> String {
    let (mut out, mut from) = (String::new(), 0);
    for span in &rendered.spans {
        let text = &rendered.text[from..span.end];
        let [open, close] = if span.literal { ["", ""] } else { ["[", "]"] };
        out.extend([open, text, close]);
        from = span.end;
    }
    out
}

#[test]
fn templates_that_grow_or_nest_without_bound_are_refused() {
    let double = |start: &str, grow: &str| {
        format!(
            "{{% set ns = namespace(s={start}) %}}{{% for i in range(99) %}}\
             {{% set ns.s = {grow} %}}{{% endfor %}}"
        )
    };
    let deep =
        "{% set ns = namespace(s=1) %}{% for i in range(90000) %}{% set ns.s = GROW %}{% endfor %}";
    let lists: String =
        ["{% set a = [1] %}".to_owned(), "{% set a = [a, a] %}".repeat(60)].concat();
    let templates = [
        "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}".to_owned(),
        "{% macro m(x) %}{% if x > 0 %}{{ m(x - 1) }}{{ m(x - 1) }}{% endif %}{% endmacro %}\
         {{ m(50) }}"
            .to_owned(),
        "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}".to_owned(),
        "{% macro m(x, n) %}{% if n %}{{ m([x, x], n - 1) }}{% else %}{{ x }}{% endif %}\
         {% endmacro %}{{ m([1], 40) }}"
            .to_owned(),
        double("'xxxxxxxx'", "ns.s ~ ns.s") + "{{ ns.s }}",
        double("'xxxxxxxx'", "ns.s + ns.s") + "{{ ns.s }}",
        double("[1]", "[ns.s, ns.s]") + "{{ ns.s }}",
        double("[1]", "ns.s + ns.s") + "{{ ns.s }}",
        double("[1]", "ns.s | zip(ns.s) | list") + "{{ ns.s }}",
        double("[1]", "ns.s | chain(ns.s)") + "{{ ns.s | length }}",
        double("{'a': 1}", "dict(a=ns.s, b=ns.s)") + "{{ ns.s }}",
        double("1", "ns"),
        double("1", "[{'a': ns}]"),
        deep.replace("GROW", "[ns.s]"),
        deep.replace("GROW", "{'a': ns.s}"),
        deep.replace("GROW", "(ns.s, 1)"),
        deep.replace("GROW", "dict(a=ns.s)"),
        deep.replace("GROW", "[ns.s] | batch(1) | list"),
        "{% set ns = namespace(s=range(90000) | list) %}{% for i in range(90000) %}\
         {% set ns.s = ns.s[1:] %}{% endfor %}"
            .to_owned(),
        "{% set r = range(99999) | list %}{% for i in r %}{{ r[99998:] | length }}\
         {% endfor %}"
            .to_owned(),
        lists.clone() + "{{ a }}",
        lists.clone() + "{{ a ~ '' }}",
        lists.clone() + "{{ a == [1] }}{{ a in [a] }}{{ a < a }}",
        lists.clone() + "{{ a | tojson }}",
        lists.clone() + "{{ a | pprint }}",
        lists.clone() + "{{ a | string }}",
        lists.clone() + "{{ a | join }}",
        lists.clone() + "{{ [a] | map('string') | list }}",
        lists.clone() + "{{ [a, a] | sort | length }}{{ [a, a] | unique | length }}",
        lists.clone() + "{{ '{}'.format(a) }}",
        lists + "{{ '%s' | format(a) }}",
        "{{ ('a' * 90000) | replace('a', 'b' * 90000) }}".to_owned(),
        "{{ ('a' * 90000).replace('a', 'b' * 90000) }}".to_owned(),
        "{{ range(90000) | list | join('b' * 90000) }}".to_owned(),
        "{{ ('b' * 90000).join(range(90000) | list) }}".to_owned(),
        "{{ (['a' * 90000] * 90000) | sum(start='') }}".to_owned(),
        "{{ (['a' * 90000] * 90000) | join }}".to_owned(),
        "{{ ['a' * 90000] * 90000 ~ '' }}".to_owned(),
        "{{ '{:>900000000}'.format(1) }}".to_owned(),
        "{{ '{:>{}}'.format(1, 900000000) }}".to_owned(),
        "{{ '{:{w}}'.format(1, w=900000000) }}".to_owned(),
        "{{ ('{0:99999}' * 90000).format(1) }}".to_owned(),
        "{{ '%900000000d' | format(1) }}".to_owned(),
        "{{ '%*d' | format(900000000, 1) }}".to_owned(),
        "{{ ('a\n' * 90000) | indent(900000) }}".to_owned(),
        "{{ [[1] * 90000] | tojson(indent=900000) }}".to_owned(),
        "{{ [1] | batch(900000000, 'x') | list | length }}".to_owned(),
        "{{ [1] | slice(900000000) | list | length }}".to_owned(),
        "{{ 'a' * 900000000 }}".to_owned(),
        "{{ [1] * 90000000 | int }}{{ [1] * 90000000 }}".to_owned(),
        "{{ ('a' * 99999999).split('a') | length }}".to_owned(),
        "{{ ('a' * 99999999) | list | length }}".to_owned(),
        "{{ 'a' | map(*(['map'] * 90000)) | list }}".to_owned(),
        "{{ debug() }}".to_owned(),
    ];
    let record = json!({"text": "t"});
    for text in &templates {
        let name = &text[..text.len().min(90)];
        let refusal = render(text, &[], &record).expect_err(name);
        assert_eq!(refusal.reason, DropReason::TemplateError, "{name}: {refusal:?}");
    }
}

#[test]
fn templates_too_large_or_deep_to_parse_are_errors() {
    let sum = format!("{{{{ {} }}}}", vec!["1"; 90_000].join("+"));
    let nots = format!("{{{{ {}1 }}}}", "not ".repeat(90_000));
    let elifs = format!("{{% if x %}}{}{{% endif %}}", "{% elif x %}".repeat(90_000));
    let tall = "a".repeat(1 << 21) + "{% if x %}{% endif %}";
    let nested = "{{ ".to_owned() + &"[".repeat(900) + &"]".repeat(900) + " }}";
    for text in [sum, nots, elifs, tall, nested] {
        let error =
            Template::parse(&text, &Controls::new([]), &Vec::new()).unwrap_err().to_string();
        assert!(error.contains("template"), "{error}");
    }
    // As large and deep as they may be: read, rendered, and dropped.
    let sum = format!("{{{{ {} }}}}", vec!["n"; 900].join("+"));
    assert_eq!(render(&sum, &[], &json!({"n": 1})).unwrap().0.text, "900");
    let elifs =
        format!("{{% if n == 0 %}}{}{{% else %}}e{{% endif %}}", "{% elif n == 2 %}".repeat(2_000));
    assert_eq!(render(&elifs, &[], &json!({"n": 1})).unwrap().0.text, "e");
}

#[test]
fn a_template_s_own_text_is_no_data_whatever_it_does_with_the_data() {
    let record = json!({
        "q": " one two ", "a": "three", "n": 7, "role": "user", "empty": "", "ls": ["x", "y"],
        "turns": [
            {"role": "user", "content": "<think>\nhm\n</think>\n\nok"},
            {"role": "bot", "content": "no"},
        ],
        "m": {"k1": "v1"},
    });
    let cases = [
        ("Q: {{ q | trim }} A:", "Q: [one two] A:"),
        ("Q: {{ q | upper }}!", "Q: [ ONE TWO ]!"),
        ("({{ q.strip() | replace('one', 'uno') }})", "([uno two])"),
        ("({{ (q | trim)[:3] }}, {{ a[-1] }}, {{ a[::-1] }})", "([one], [e], [eerht])"),
        ("{{ 'A:' + a ~ '-' ~ q | trim }}.", "A:[three]-[one two]."),
        ("{% if q | length > 3 %}long {{ a }}{% else %}short{% endif %}", "long [three]"),
        (
            "{% if role == 'user' %}U{% endif %}{% if 'x' in ls %}X{% endif %}:{{ role }}",
            "UX:[user]",
        ),
        ("{% for x in ls %}- {{ x }}\n{% endfor %}", "- [x]\n- [y]\n"),
        ("{{ ls | join(', ') }}; {{ ', '.join(ls) }}", "[x], [y]; [x], [y]"),
        (
            "{% for t in turns %}<{{ t.role }}>{{ t.content.split('</think>')[-1].lstrip('\n') }}\
             {% endfor %}",
            "<[user]>[ok]<[bot]>[no]",
        ),
        (
            "{{ turns | selectattr('role', 'equalto', 'bot') | map(attribute='content') | join }}.",
            "[no].",
        ),
        ("{{ turns | map(attribute='role') | map('upper') | join('/') }}.", "[USER]/[BOT]."),
        (
            "{% set ns = namespace(x='') %}{% for x in ls %}{% set ns.x = ns.x ~ x ~ ';' %}\
             {% endfor %}{{ ns.x }}",
            "[x];[y];",
        ),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(a) | upper }}", "<[THREE]>"),
        ("{% set x %}a {{ a }} {% endset %}{{ x | trim }}.", "a [three]."),
        ("{% filter replace('t', 'T') %}t{{ a }}{% endfilter %}", "T[Three]"),
        (
            "{{ empty or 'none' }}{{ empty | default('x', true) }}{% if not empty %}!{% endif %}",
            "nonex!",
        ),
        ("{{ nope | default('-') }}{{ a | default('-') }}", "-[three]"),
        ("{{ 'yes' if n > 3 else a }} {{ a if n > 3 else 'no' }}", "yes [three]"),
        ("{{ n }} {{ n + 1 }} {{ q | length }}:", "[7] [8] [9]:"),
        (
            "{% for k, v in m.items() %}{{ k }}={{ v }}{% endfor %}{% for k in m %}.{{ m[k] }}\
             {% endfor %}",
            "[k1]=[v1].[v1]",
        ),
        ("{{ m | tojson }}.", "[{\"k1\": \"v1\"}]."),
        ("{{ ls }}.", "[['x', 'y']]."),
        ("{{ '%s-%s' | format(a, role) }} {{ '{}'.format(a) }}", "[three]-[user] [three]"),
        ("{{ a | list | join('-') }}", "[t]-[h]-[r]-[e]-[e]"),
        ("{% for c in a %}{{ c }}{% if loop.last %}.{% endif %}{% endfor %}", "[three]."),
        (
            "{{ {'user': 'Human', 'bot': 'AI'}[role] }}: {{ m.get('k1', '?') }}\
             {{ m.get(role, a) }}",
            "Human: [v1][three]",
        ),
    ];
    for (template, expected) in cases {
        let (rendered, unmarked) = render(template, &["<t>"], &record).unwrap();
        assert_eq!(
            (shown(&rendered).replace("][", ""), unmarked),
            (expected.replace("][", ""), 0),
            "{template}"
        );
    }
}

#[test]
fn a_text_like_a_control_token_that_the_template_changes_is_kept_where_no_token_comes_of_it() {
    let controls = ["<t>", "<eng>", "<|im_start|>", "</s>"];
    let br = "<t> {{ text | replace('<br />', ' ') }} <eng>:";
    let (rendered, _) =
        render(br, &controls, &json!({"text": "good film<br /><br />watch it"})).unwrap();
    assert_eq!(shown(&rendered), "<t> [good film  watch it] <eng>:");
    let think = "{{ '<|im_start|>assistant\n' + content.split('</think>')[-1].lstrip('\n') }}";
    let (rendered, _) =
        render(think, &controls, &json!({"content": "<think>\nhm\n</think>\n\nok"})).unwrap();
    assert_eq!(shown(&rendered), "<|im_start|>assistant\n[ok]");
    let spelled = "<t>{{ text | replace('x', '') }}<eng>";
    let (rendered, _) =
        render(spelled, &controls, &json!({"text": "a<xt> <|im_xstart|>"})).unwrap();
    assert_eq!(shown(&rendered), "<t>[a<t> <|im_start|>]<eng>");
    let around = "<{{ a }}|im_start|{{ n }}>{{ '<' ~ a ~ 't>' }}";
    let (rendered, _) = render(around, &controls, &json!({"a": "", "n": "x"})).unwrap();
    let first = rendered.spans[0];
    assert_eq!((rendered.text.as_str(), first.end, first.literal), ("<|im_start|x><t>", 1, true));
}

#[test]
fn where_provenance_is_not_found_all_text_is_data_and_the_token_is_named() {
    // A precision cuts a text that has marks elsewhere than one that has none.
    let record = json!({"a": "xyz", "b": "<t>", "c": "\u{fdd0}"});
    let (rendered, unmarked) = render("\nQ {{ '%.2s' | format(a) }}", &["<t>"], &record).unwrap();
    assert_eq!((shown(&rendered).as_str(), unmarked), ("[\nQ xy]", 1));
    let (rendered, unmarked) = render("\nQ {{ c | trim }}", &["<t>"], &record).unwrap();
    assert_eq!(
        (shown(&rendered).as_str(), unmarked),
        ("\nQ [\u{fdd0}]", 0),
        "data that holds noncharacters"
    );
    let text = "Q\n<t>{{ '%.2s' | format(a) }}{{ b | replace('<', '(') }}";
    let refusal = render(text, &["<t>"], &record).unwrap_err();
    assert_eq!(refusal.reason, DropReason::Refused);
    assert!(refusal.why.contains("'<t>'") && refusal.why.contains("line 2"), "{refusal:?}");
}

const LITERALS: [&str; 7] = ["<t>", "<", ">", "t", " ", "a: ", "/t>"];

fn literal() -> impl Strategy<Value = String> {
    prop::sample::select(&LITERALS[..]).prop_map(str::to_owned)
}

/// Expressions that are texts.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => prop::sample::select(&["a", "b.c", "ls[0]", "b['c']", "v", "e"][..])
            .prop_map(str::to_owned),
        1 => literal().prop_map(|text| format!("'{text}'")),
        1 => literal().prop_map(|text| format!("(ls | join('{text}'))")),
    ];
    leaf.prop_recursive(4, 16, 2, |inner| {
        let suffix = prop::sample::select(
            &[
                " | trim",
                " | upper",
                "[1:]",
                "[:3]",
                "[::-1]",
                "[0]",
                ".strip()",
                " | default('t')",
                " | string",
                " | replace('<', '(')",
                ".replace('w', '')",
                ".split(' ')[-1]",
                ".split('<')[0]",
                ".lstrip('<')",
                " | list | join('')",
                " | reverse",
                " | first",
                " | title",
                " | default('>', true)",
                " | e",
                " | replace('t', '')",
                ".rstrip('>q')",
                " | batch(2) | map('join') | join('-')",
            ][..],
        );
        prop_oneof![
            3 => (inner.clone(), suffix).prop_map(|(of, suffix)| format!("({of}){suffix}")),
            2 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} ~ {b})")),
            1 => (inner.clone(), inner.clone())
                .prop_map(|(a, b)| format!("({a} if n > 1 else {b})")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} or {b})")),
            1 => (inner.clone(), literal()).prop_map(|(a, b)| format!(
                "([{a}, '{b}', e] | join('<'))")),
            1 => inner.prop_map(|a| format!("(['<', {a}] | map('upper') | join)")),
        ]
    })
}

fn template() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        2 => literal(),
        3 => expression().prop_map(|text| format!("{{{{ {text} }}}}")),
        1 => expression().prop_map(|text| format!("{{% set v = {text} %}}{{{{ v }}}}")),
        1 => Just("{{ n }}{{ ls }}{{ b | tojson }}".to_owned()),
    ];
    let body = leaf.prop_recursive(3, 12, 3, |inner| {
        let many = prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat());
        prop_oneof![
            3 => many.clone(),
            1 => many.clone().prop_map(|body| format!(
                "{{% for x in ls %}}{body}<{{{{ x }}}}{{% endfor %}}")),
            1 => (expression(), many.clone()).prop_map(|(text, body)| format!(
                "{{% if {text} == 'q' %}}{body}{{% else %}}t>{body}{{% endif %}}")),
            1 => (expression(), many.clone()).prop_map(|(text, body)| format!(
                "{{% if ({text}) | length > 2 %}}{body}{{% endif %}}")),
            1 => many.clone().prop_map(|body| format!(
                "{{% set y %}}{body}{{% endset %}}{{{{ y | trim }}}}")),
            1 => (many, expression()).prop_map(|(body, text)| format!(
                "{{% macro m(x) %}}<{{{{ x }}}}{body}{{% endmacro %}}{{{{ m({text}) }}}}")),
        ]
    });
    body.prop_map(|body| format!("{{% set v = 't' %}}{body}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn random_templates_render_as_the_engine_does_and_no_literal_holds_data(
        text in template(), data in prop::collection::vec("[qw <>t/]{0,7}", 4),
    ) {
        // The template spells neither q nor w, so whatever has one comes from data.
        let record = json!({
            "a": data[0], "b": {"c": data[1]}, "ls": [data[2], data[3]], "n": 2, "e": "",
        });
        let controls = Controls::new(["<t>", "</t>", "<>", " t", "q<"]);
        let template = Template::parse(&text, &controls, &Vec::new()).unwrap();
        let (mut out, fields) = (Rendered::default(), fields_of(&record));
        let rendered = template.render(&fields, false, &mut out);
        // In a macro the engine does not see names that are sliced: it takes them for undefined,
        // Jinja2 does not.
        let slices = ["[1:]", "[:3]", "[::-1]"];
        let is_misread =
            text.contains("{% macro") && slices.iter().any(|slice| text.contains(slice));
        match (template.rendered_by_the_engine_alone(&fields), rendered) {
            _ if is_misread => {}
            (Ok(plain), Ok(_)) => prop_assert_eq!(&out.text, &plain),
            (Ok(_), Err(refusal)) => prop_assert_eq!(refusal.reason, DropReason::Refused),
            (Err(_), rendered) => prop_assert!(rendered.is_err()),
        }
        let mut from = 0;
        for span in &out.spans {
            let piece = &out.text[from..span.end];
            let has_data = piece.contains(['q', 'w', 'Q', 'W']);
            prop_assert!(!span.literal || !has_data, "{piece} of {}", out.text);
            prop_assert_eq!(span.role, if span.literal { Role::Template } else { Role::Data });
            from = span.end;
        }
    }
}
