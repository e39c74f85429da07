//! A database as text, from which it can be made again.

use std::fmt::Write;
use std::path::Path;

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqliteConnection};

/// The tables, each after those that it refers to.
const TABLES: [&str; 8] =
    ["hosts", "jobs", "messages", "tries", "phases", "cancels", "reservations", "boots"];

pub(crate) async fn sqlite(path: &Path) -> (i64, String) {
    let url = format!("sqlite://{}", path.display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    let row = sqlx::query("PRAGMA user_version").fetch_one(&mut connection).await.unwrap();
    let version: i64 = row.get(0);
    let mut text = tables("sqlite");
    for table in TABLES {
        let names = format!("SELECT name FROM pragma_table_info('{table}') ORDER BY cid");
        let names = sqlx::query(AssertSqlSafe(names)).fetch_all(&mut connection).await.unwrap();
        let names: Vec<String> = names.iter().map(|row| row.get(0)).collect();
        let quoted = |name: &str| format!("quote({name})");
        let rows = sqlx::query(AssertSqlSafe(select(table, &names, quoted)));
        for row in rows.fetch_all(&mut connection).await.unwrap() {
            text.push_str(&insert(table, &names, &row.get::<String, _>(0)));
        }
    }
    writeln!(text, "\nPRAGMA user_version = {version};").unwrap();
    (version, text)
}

pub(crate) async fn postgres(url: &str) -> (i64, String) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let version = "SELECT version FROM solstice_schema";
    let version: i64 = sqlx::query(version).fetch_one(&mut connection).await.unwrap().get(0);
    let mut text = tables("postgres");
    for table in TABLES {
        let names = format!(
            "SELECT column_name::text FROM information_schema.columns \
             WHERE table_name = '{table}' AND table_schema = 'public' ORDER BY ordinal_position"
        );
        let names = sqlx::query(AssertSqlSafe(names)).fetch_all(&mut connection).await.unwrap();
        let names: Vec<String> = names.iter().map(|row| row.get(0)).collect();
        let quoted = |name: &str| format!("quote_nullable({name}::text)");
        let rows = sqlx::query(AssertSqlSafe(select(table, &names, quoted)));
        for row in rows.fetch_all(&mut connection).await.unwrap() {
            text.push_str(&insert(table, &names, &row.get::<String, _>(0)));
        }
    }
    text.push_str("\nCREATE TABLE solstice_schema (version BIGINT NOT NULL);\n");
    writeln!(text, "INSERT INTO solstice_schema VALUES ({version});").unwrap();
    (version, text)
}

/// The migrations of today, which make the tables.
fn tables(database: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/migrations");
    let files = std::fs::read_dir(directory.join(database)).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    let files = files.iter().map(|file| std::fs::read_to_string(file).unwrap());
    files.collect::<Vec<_>>().join("\n")
}

fn select(table: &str, names: &[String], quoted: impl Fn(&str) -> String) -> String {
    let values: Vec<_> = names.iter().map(|name| quoted(name)).collect();
    format!("SELECT {} FROM {table}", values.join(" || ', ' || "))
}

fn insert(table: &str, names: &[String], values: &str) -> String {
    format!("\nINSERT INTO {table} ({})\nVALUES ({values});\n", names.join(", "))
}
