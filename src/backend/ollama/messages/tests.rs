//! What becomes of a chat's messages on their way to Ollama.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::protocol::Code;

fn message(message: &str) -> Result<String, Failure> {
    let list = format!("[{message}]");
    let translated = translate_messages(&list)?;
    let mut json = String::new();
    translated.unwrap_or(Value::Raw(&list)).write(&mut json);
    Ok(json[1..json.len() - 1].to_owned())
}

fn assert_message(theirs: &str, ours: &str) {
    assert_eq!(message(theirs).unwrap(), ours, "{theirs}");
}

fn assert_refused(theirs: &str) {
    assert_eq!(message(theirs).unwrap_err().code, Code::Invalid, "{theirs}");
}

#[test]
fn a_message_in_ollamas_words_stays_byte_for_byte() {
    for same in [
        r#"{ "role" : "user", "content":"a\/b", "images":["aGk="]}"#,
        r#"{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f","arguments":{ "n":1e400}}}]}"#,
        r#"{"role":"tool","content":"","tool_call_id":"call_1","tool_calls":null}"#,
    ] {
        assert_message(same, same);
    }
}

#[test]
fn parts_become_text_and_images() {
    assert_message(
        r#"{"role":"user","content":[{"type":"text","text":"a\n"},{"type":"text","text":"\u0062"}],"x":1}"#,
        r#"{"role":"user","content":"a\n\u0062","x":1}"#,
    );
    assert_message(
        concat!(
            r#"{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,QUJD","detail":"low"}},"#,
            r#"{"type":"text","text":"t"},{"type":"image_url","image_url":"DATA:;BASE64,RA=="},"#,
            r#"{"type":"image_url","image_url":{"url":"data:image\/png;base64,\/w=="}}],"images":["eA=="]}"#,
        ),
        r#"{"content":"t","images":["eA==","QUJD","RA==","/w=="]}"#,
    );
    assert_message(r#"{"content":[]}"#, r#"{"content":""}"#);
    assert_message(
        r#"{"content":[{"type":"text","text":null},{"type":"text","text":"a"}]}"#,
        r#"{"content":"a"}"#,
    );
}

#[test]
fn nobody_is_made_to_fetch_an_image_and_no_part_is_dropped() {
    for part in [
        r#"{"type":"image_url","image_url":{"url":"http://10.0.0.1/secret.png"}}"#,
        r#"{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}"#,
        r#"{"type":"image_url","image_url":{"url":"data:image/png,raw"}}"#,
        r#"{"type":"image_url","image_url":{}}"#,
        r#"{"type":"input_audio","input_audio":{}}"#,
        r#"{"type":"text"}"#,
        r#"{"type":"text","text":7}"#,
        r#"{"text":"a"}"#,
        r#""a""#,
    ] {
        assert_refused(&format!(r#"{{"content":[{part}]}}"#));
    }
    assert_refused(
        r#"{"content":[{"type":"image_url","image_url":"data:;base64,eA=="}],"images":"x"}"#,
    );
    assert_refused(r#""a message""#);
}

#[test]
fn arguments_of_tool_calls_become_objects() {
    let call = |arguments| {
        format!(
            r#"{{"tool_calls":[{{"id":"c","type":"function","function":{{"name":"f","arguments":{arguments}}}}}]}}"#
        )
    };
    assert_message(
        &call(r#""{\"n\": 1.0, \"s\":\"\\n\"}""#),
        &call(r#"{"n": 1.0, "s":"\n"}"#),
    );
    assert_message(
        &call(r#""{\"a\":\"\ud83d\"}""#),
        &call("{\"a\":\"\u{fffd}\"}"),
    );
    for nothing in [
        r#""""#,
        r#"" \n""#,
        "null",
        r#""null""#,
        r#""\"\"""#,
        "[]",
        r#""[ ]""#,
    ] {
        assert_message(&call(nothing), &call("{}"));
    }
    assert_message(
        r#"{"tool_calls":[{"function":{"name":"f"}}]}"#,
        r#"{"tool_calls":[{"function":{"name":"f","arguments":{}}}]}"#,
    );
    for wrong in [
        r#""[1]""#,
        r#""{\"a\":""#,
        "7",
        r#""[""#,
        r#""{}{}""#,
        r#""\ud800""#,
    ] {
        assert_refused(&call(wrong));
    }
}

fn messages(list: &str) -> String {
    let mut json = String::new();
    let translated = translate_messages(list).unwrap();
    translated.unwrap_or(Value::Raw(list)).write(&mut json);
    json
}

#[test]
fn a_tools_result_names_the_tool_that_was_called() {
    let calls = concat!(
        r#"{"role":"assistant","tool_calls":["#,
        r#"{"id":"a","function":{"name":"f","arguments":{}}},{"id":"\u0062","function":{"name":"g\n","arguments":{}}}]}"#,
    );
    for (theirs, tool) in [
        (r#""tool_call_id":"a""#, r#","tool_name":"f""#),
        (r#""tool_call_id":"b""#, r#","tool_name":"g\n""#),
        (r#""tool_call_id":"b","name":"h""#, r#","tool_name":"h""#),
        (r#""name":"h""#, r#","tool_name":"h""#),
        (r#""tool_call_id":"a","name":"""#, r#","tool_name":"f""#),
        (r#""tool_call_id":"unknown""#, ""),
        (r#""tool_call_id":"a","tool_name":"x""#, ""),
    ] {
        let result = |more| format!(r#"[{calls},{{"role":"tool",{theirs}{more}}}]"#);
        assert_eq!(messages(&result("")), result(tool));
    }
    let user = format!(r#"[{calls},{{"role":"user","name":"h"}}]"#);
    assert_eq!(messages(&user), user);
}

#[test]
fn a_call_whose_id_comes_again_is_the_last_one() {
    let call = |name| {
        format!(
            r#"{{"tool_calls":[{{"id":"call_0","function":{{"name":"{name}","arguments":{{}}}}}}]}}"#
        )
    };
    let result = |tool| format!(r#"{{"role":"tool","tool_call_id":"call_0"{tool}}}"#);
    assert_eq!(
        messages(&format!(
            "[{},{},{},{}]",
            call("f"),
            result(""),
            call("g"),
            result("")
        )),
        format!(
            "[{},{},{},{}]",
            call("f"),
            result(r#","tool_name":"f""#),
            call("g"),
            result(r#","tool_name":"g""#)
        )
    );
}

#[test]
fn calls_that_share_an_id_in_one_message_have_their_results_in_their_order() {
    for id in ["", "call", r"\ud83d"] {
        let call =
            |name| format!(r#"{{"id":"{id}","function":{{"name":"{name}","arguments":{{}}}}}}"#);
        let calls = format!(r#"{{"tool_calls":[{},{}]}}"#, call("f"), call("g"));
        let result = |tool: String| format!(r#"{{"role":"tool","tool_call_id":"{id}"{tool}}}"#);
        let named = |tool| result(format!(r#","tool_name":"{tool}""#));
        let turn = |of: [String; 3]| format!("{calls},{}", of.join(","));
        let theirs = turn(["f", "g", "g"].map(|_| result(String::new())));
        let ours = turn(["f", "g", "g"].map(named));
        assert_eq!(
            messages(&format!("[{theirs},{theirs}]")),
            format!("[{ours},{ours}]")
        );
    }
}

#[test]
fn what_an_earlier_answer_thought_is_not_lost() {
    assert_message(
        r#"{"thinking":"","reasoning_content":"R"}"#,
        r#"{"thinking":"R"}"#,
    );
    for name in ["reasoning_content", "reasoning"] {
        assert_message(
            &format!(r#"{{"role":"assistant","{name}":"h\u006d","content":"x"}}"#),
            r#"{"role":"assistant","content":"x","thinking":"h\u006d"}"#,
        );
    }
    for same in [
        r#"{"role":"assistant","reasoning":"b","thinking":"a"}"#,
        r#"{"role":"assistant","reasoning":{"x":1},"reasoning_content":""}"#,
    ] {
        assert_message(same, same);
    }
}

#[test]
fn only_the_messages_that_need_it_are_rewritten() {
    let list = r#"[{"role" : "user"} , {"role":"developer","content":"x"}, { "role":"system" }]"#;
    let mut json = String::new();
    translate_messages(list).unwrap().unwrap().write(&mut json);
    assert_eq!(
        json,
        r#"[{"role" : "user"},{"role":"system","content":"x"},{ "role":"system" }]"#
    );
}
