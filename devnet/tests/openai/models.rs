//! The list, and which names are good.

use super::*;

#[tokio::test]
async fn each_style_lists_as_its_server_does() {
    for (style, id, odd) in [
        (Style::LlamaServer, "tiny", "/models/0/size"),
        (Style::Vllm, "tiny", "/data/0/max_model_len"),
        (Style::Mlx, "/srv/models/tiny", "/data/0/created"),
        (Style::Ollama, "tiny:latest", "/data/0/owned_by"),
    ] {
        let server = server(style).await;
        let list = http::get(&(server.url() + MODELS)).await.unwrap().json();
        assert_eq!(list["data"][0]["id"], id);
        assert_eq!(server.model_id("tiny"), id);
        assert!(list.pointer(odd).is_some(), "{list}");
    }
    let server = server(Style::Transformers).await;
    let list = http::get(&(server.url() + MODELS)).await.unwrap().json();
    assert_eq!(list, json!({"object": "list", "data": []}));
}

#[tokio::test]
async fn the_router_shows_its_command_lines_and_loads_what_it_is_asked_for() {
    let server = with(Style::LlamaServer, |behaviour| behaviour.router = true).await;
    server.add_model("other");
    let status = async |place: usize| {
        let list = http::get(&(server.url() + MODELS)).await.unwrap().json();
        list["data"][place]["status"]["value"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let list = http::get(&(server.url() + MODELS)).await.unwrap().text();
    assert!(list.contains("--api-key"), "{list}");
    assert_eq!(
        (status(0).await, status(1).await),
        ("unloaded".to_owned(), "unloaded".to_owned())
    );
    let unknown = ask(&server, &and(chat(&server, 1), &json!({"model": "nope"}))).await;
    assert_eq!(unknown.status, 400);
    assert_eq!(
        ask(&server, &and(chat(&server, 1), &json!({"model": "other"})))
            .await
            .status,
        200
    );
    assert_eq!(
        (status(0).await, status(1).await),
        ("unloaded".to_owned(), "loaded".to_owned())
    );
    server.remove_model("tiny");
    assert_eq!(status(0).await, "loaded");
}

#[tokio::test]
async fn a_list_of_the_tests_own_takes_the_place_of_the_servers() {
    let server = server(Style::Vllm).await;
    let ids = async || {
        let list = http::get(&(server.url() + MODELS)).await.unwrap().json();
        list["data"].as_array().map_or(0, Vec::len)
    };
    for (list, length) in [
        (lists::many(), lists::MANY),
        (lists::duplicates(), 4),
        (lists::slashes_and_colons(), 3),
        (lists::empty(), 0),
        (lists::failing(), 0),
        (lists::nothing(), 0),
    ] {
        server.set_list(list);
        assert_eq!(ids().await, length);
    }
    server.set_list(lists::slashes_and_colons());
    let body = and(chat(&server, 1), &json!({"model": "Qwen/Qwen3-8B"}));
    assert_eq!(ask(&server, &body).await.status, 200);
    server.clear_faults();
    assert_eq!(ids().await, 1);
}
