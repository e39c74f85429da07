//! How SQLite means to run the statements that must not become slower with every job that is over.

use sqlx::{Connection, Row, SqliteConnection};

use super::{claiming, ending, reading};
use crate::store::migrations;

/// The steps of a plan, in SQLite's words.
async fn plan(connection: &mut SqliteConnection, statement: &'static str) -> String {
    let explained = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
    let rows = sqlx::query(explained).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>("detail")).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn every_statement_has_its_index() {
    let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    migrations::sqlite(&mut connection).await.unwrap();
    for (statement, index, sorts) in [
        // Covering or not is for the version of SQLite to decide.
        (claiming::FITTING, "INDEX jobs_waiting (label=?", false),
        (claiming::STARVED, "INDEX jobs_waiting (label=?", false),
        (reading::OPEN, "USING INDEX jobs_open", false),
        (reading::ALL, "USING INDEX jobs_created", false),
        (reading::REPOSITORY, "USING INDEX jobs_repository (repository=?", false),
        (reading::ACTIVE, "USING INDEX jobs_leased (host=?", true),
        (reading::OVERDUE, "USING INDEX jobs_waiting_until (deadline<?", false),
        (reading::CANCELLED, "USING INDEX jobs_waiting_for_end", false),
        (ending::OURS, "USING INDEX jobs_undelivered (host=?", false),
    ] {
        let plan = plan(&mut connection, statement).await;
        assert!(plan.contains(index), "{statement}: {plan}");
        // A sort reads everything before it gives the first row.
        assert_eq!(plan.contains("TEMP B-TREE FOR ORDER BY"), sorts, "{statement}: {plan}");
    }
}
