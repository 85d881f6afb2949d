use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Builder;

use super::*;

const WITHIN: Duration = Duration::from_secs(20);

/// What `question` is answered with by a server that says `parts`, one write each; and what it was asked.
async fn asked(question: Question, parts: &'static [&'static [u8]]) -> (Result<Answer, SourceError>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.windows(4).any(|window| window == b"\r\n\r\n") {
            if socket.read_buf(&mut request).await.unwrap() == 0 {
                break;
            }
        }
        for part in parts {
            // The client may have given up on a bad answer.
            let _ = socket.write_all(part).await;
            tokio::task::yield_now().await;
        }
        String::from_utf8(request).unwrap()
    });
    let server = Server { host: "127.0.0.1".into(), port, authorities: None };
    let answer = server.ask(question, WITHIN).await;
    (answer, serve.await.unwrap())
}

fn run<T>(future: impl Future<Output = T>) -> T {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn bodies_by_length_by_chunks_and_to_the_end() {
    let answers: [&[&[u8]]; 3] = [
        &[b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n[1, ", b"23]"],
        &[
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n",
            b"5;x=y\r\n, 23]\r\n0\r\nA: b\r\n\r\n",
        ],
        &[b"HTTP/1.0 200 OK\r\n\r\n[1,", b"23]"],
    ];
    for parts in answers {
        run(async {
            let question = Question::get("/a?b=c").header("authorization", "Bearer x");
            let (answer, request) = asked(question, parts).await;
            assert_eq!(answer.unwrap().json::<Vec<u8>>(WITHIN).await.unwrap(), [1, 23]);
            assert!(request.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{request}");
            assert!(request.contains("authorization: Bearer x\r\n"), "{request}");
            assert!(request.contains("host: 127.0.0.1:"), "{request}");
        });
    }
}

#[test]
fn what_is_no_whole_answer_is_an_error_and_never_an_empty_one() {
    let broken: [&[&[u8]]; 5] = [
        &[],
        &[b"SSH-2.0-x\r\n\r\n"],
        &[b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"],
        &[b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n[]"],
        &[b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n"],
    ];
    for parts in broken {
        run(async {
            let (answer, _) = asked(Question::get("/"), parts).await;
            let outcome = match answer {
                Ok(answer) => answer.json::<Vec<u8>>(WITHIN).await,
                Err(error) => Err(error),
            };
            assert!(outcome.is_err(), "{parts:?}");
        });
    }
    let long = Question::get("/").header("authorization", "a\r\nb: c");
    let server = Server { host: "127.0.0.1".into(), port: 9, authorities: None };
    assert!(run(server.ask(long, WITHIN)).is_err());
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Server { host: "127.0.0.1".into(), port, authorities: None };
        let asked = Instant::now();
        let error = server.ask(Question::get("/"), Duration::from_millis(50)).await.err().unwrap();
        assert!(error.to_string().contains("no answer within"), "{error}");
        assert!(asked.elapsed() < WITHIN);
    });
}

#[test]
fn a_body_without_end_is_given_up() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let part = vec![b' '; 1 << 16];
            while socket.write_all(&part).await.is_ok() {}
        });
        let server = Server { host: "127.0.0.1".into(), port, authorities: None };
        let answer = server.ask(Question::get("/"), WITHIN).await.unwrap();
        let error = answer.json::<Vec<u8>>(WITHIN * 3).await.unwrap_err();
        assert!(error.to_string().contains("more than"), "{error}");
        serve.abort();
    });
}

#[test]
fn errors_carry_what_the_server_says() {
    run(async {
        let (answer, _) = asked(
            Question::get("/"),
            &[b"HTTP/1.1 403 Forbidden\r\nContent-Length: 69\r\n\r\n{\"kind\":\"Status\",\"message\":\"pods is forbidden: User x cannot list\"}  "],
        )
        .await;
        let message = answer.unwrap().message(WITHIN).await;
        assert!(
            message.ends_with("answers 403 Forbidden: pods is forbidden: User x cannot list"),
            "{message}"
        );
        let (answer, _) =
            asked(Question::get("/"), &[b"HTTP/1.1 500 No\r\nContent-Length: 8\r\n\r\n\x1b[0m\xffno\n"])
                .await;
        let message = answer.unwrap().message(WITHIN).await;
        assert!(message.ends_with("500 Internal Server Error: [0m\u{fffd}no"), "{message}");
    });
}

#[test]
fn selectors_are_encoded() {
    assert_eq!(encode("app=web,tier in (a b)"), "app%3Dweb%2Ctier%20in%20%28a%20b%29");
}

#[cfg(feature = "consul")]
#[test]
fn servers_are_read_from_urls() {
    let read = |url: &str, tls| {
        let (server, path) = Server::of_url(url, tls, Some("/ca".into()))?;
        Ok::<_, String>(format!("{server} {path} {}", server.authority()))
    };
    for (url, tls, expected) in [
        ("http://a", false, "http://a:80 / a"),
        ("http://a:80/", true, "http://a:80 / a"),
        ("https://a", false, "https://a:443 / a"),
        ("https://a:80/b/c?d=e", false, "https://a:80 /b/c?d=e a:80"),
        ("http://[fd00::1]:8500/v1", false, "http://[fd00::1]:8500 /v1 [fd00::1]:8500"),
        ("https://[fd00::1]", false, "https://[fd00::1]:443 / [fd00::1]"),
        ("a:9", false, "http://a:9 / a:9"),
        ("a", true, "https://a:443 / a"),
    ] {
        assert_eq!(read(url, tls).unwrap(), expected, "{url}");
    }
    for wrong in
        ["", "http://", "http:///x", "ftp://a", "http://a:b", "http://a:99999", "http://a@b", "http://a?b"]
    {
        assert!(read(wrong, false).unwrap_err().contains("write http://HOST:PORT"), "{wrong}");
    }
}
