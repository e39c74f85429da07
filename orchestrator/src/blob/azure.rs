//! The part of the Azure blob service that its clients use to send a blob: a whole one, or blocks and a
//! list of them (the answers of the forges' services are addresses of it, github-runner-protocol 8.5).

use futures_util::StreamExt;
use reqwest::Url;

use super::{Blob, BlobError, Room};
use crate::calls::Body;

/// The bytes of a list of blocks.
const LIST_BYTES: usize = 8 * 1024 * 1024;

/// The blocks of a blob, as in the Azure service.
const BLOCKS: usize = 50_000;

impl Blob {
    /// Takes the body of a `PUT` with this query.
    pub(crate) async fn put(&self, query: &str, body: Body, room: &Room) -> Result<(), BlobError> {
        let invalid = |text: &str| BlobError::Invalid(text.to_owned());
        let query = Url::parse(&format!("http://blob/?{query}"));
        let query = query.map_err(|_| invalid("the query is none"))?;
        let find = |wanted: &str| query.query_pairs().find(|(name, _)| name == wanted);
        match find("comp").as_ref().map(|(_, value)| value.as_ref()) {
            None => {
                self.restart();
                self.write(0, body, None, room).await
            }
            Some("block") => {
                let (_, name) = find("blockid").ok_or_else(|| invalid("it has no blockid"))?;
                self.write_block(&name, body, room).await
            }
            Some("blocklist") => {
                let names = names(&list(body).await?)?;
                let (blob, own) = (self.clone(), room.clone());
                room.work(move || blob.assemble(&names, &own)).await?
            }
            Some(other) => Err(invalid(&format!("comp={other} is not known"))),
        }
    }
}

async fn list(mut body: Body) -> Result<String, BlobError> {
    let mut bytes = Vec::new();
    while let Some(part) = body.next().await {
        bytes.extend_from_slice(&part?);
        if bytes.len() > LIST_BYTES {
            return Err(BlobError::TooLarge("the list of blocks is too long".to_owned()));
        }
    }
    let wrong = |_| BlobError::Invalid("the list of blocks is not UTF-8".to_owned());
    String::from_utf8(bytes).map_err(wrong)
}

/// The names in `<BlockList><Latest>NAME</Latest>...</BlockList>`.
fn names(list: &str) -> Result<Vec<String>, BlobError> {
    let mut names = Vec::new();
    for part in list.split('<').skip(1) {
        let Some((tag, text)) = part.split_once('>') else { continue };
        if matches!(tag, "Latest" | "Uncommitted" | "Committed") {
            names.push(text.trim().to_owned());
        }
    }
    match names.len() {
        0 => Err(BlobError::Invalid("the list names no block".to_owned())),
        count if count > BLOCKS => {
            Err(BlobError::TooLarge(format!("a blob has {BLOCKS} blocks at most")))
        }
        _ => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_list_of_blocks_is_read() {
        let list = "<?xml version=\"1.0\"?>\n<BlockList><Latest>QQ==</Latest> <Latest>Qg==</Latest></BlockList>";
        assert_eq!(names(list).unwrap(), ["QQ==", "Qg=="]);
        assert!(names("<BlockList></BlockList>").is_err());
        assert!(names("nothing").is_err());
    }
}
