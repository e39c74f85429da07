//! Values that go into a statement and rows that come out, the same for both databases.

use std::str::FromStr;
use std::time::Duration;

use common::ids::{HostId, JobId, LeaseId, ReservationId, VmId};
use common::size::ByteSize;
use common::time::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{ColumnIndex, Decode, Postgres, Row as _, Sqlite, Type};

use super::{JobState, StoreError};

/// A parameter of a statement.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Integer(Option<i64>),
    Text(Option<String>),
    Bytes(Vec<u8>),
    Flag(bool),
}

/// The parameters of a statement, in the order of `$1`, `$2` and so on.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$($crate::store::value::Value::from($value)),*] };
}
pub(super) use values;

macro_rules! integers {
    ($($kind:ty: $value:ident => $integer:expr;)*) => { $(
        impl From<$kind> for Value {
            fn from($value: $kind) -> Self {
                Self::Integer(Some($integer))
            }
        }

        impl From<Option<$kind>> for Value {
            fn from(value: Option<$kind>) -> Self {
                Self::Integer(value.map(|$value| $integer))
            }
        }
    )* };
}

// What is too large for the databases is stored as the largest that fits: nothing real is near it.
integers! {
    i64: value => value;
    i32: value => i64::from(value);
    u32: value => i64::from(value);
    u64: value => i64::try_from(value).unwrap_or(i64::MAX);
    ByteSize: value => i64::try_from(value.0).unwrap_or(i64::MAX);
    Timestamp: value => i64::try_from(value.as_micros()).unwrap_or(i64::MAX);
    Duration: value => i64::try_from(value.as_micros()).unwrap_or(i64::MAX);
}

macro_rules! texts {
    ($($kind:ty),*) => { $(
        impl From<$kind> for Value {
            fn from(value: $kind) -> Self {
                Self::Text(Some(value.to_string()))
            }
        }
    )* };
}

texts! { &str, HostId, JobId, LeaseId, ReservationId, VmId, uuid::Uuid }

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}

impl From<Option<String>> for Value {
    fn from(value: Option<String>) -> Self {
        Self::Text(value)
    }
}

impl From<Option<&str>> for Value {
    fn from(value: Option<&str>) -> Self {
        Self::Text(value.map(str::to_owned))
    }
}

impl From<Option<HostId>> for Value {
    fn from(value: Option<HostId>) -> Self {
        Self::Text(value.map(|value| value.to_string()))
    }
}

impl From<JobState> for Value {
    fn from(value: JobState) -> Self {
        Self::from(value.name())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Flag(value)
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value)
    }
}

/// A row of a result. Whatever is not as this program writes it is [`StoreError::Malformed`].
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    pub(super) fn integer(&self, column: &str) -> Result<i64, StoreError> {
        self.get(column)
    }

    /// A number that cannot be negative, of whatever width the caller needs.
    pub(super) fn number<T: TryFrom<i64>>(&self, column: &str) -> Result<T, StoreError> {
        number(column, self.get(column)?)
    }

    pub(super) fn optional_number<T: TryFrom<i64>>(
        &self,
        column: &str,
    ) -> Result<Option<T>, StoreError> {
        self.get::<Option<i64>>(column)?.map(|value| number(column, value)).transpose()
    }

    pub(super) fn time(&self, column: &str) -> Result<Timestamp, StoreError> {
        self.number(column).map(Timestamp::from_micros)
    }

    pub(super) fn optional_time(&self, column: &str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.optional_number(column)?.map(Timestamp::from_micros))
    }

    pub(super) fn duration(&self, column: &str) -> Result<Duration, StoreError> {
        self.number(column).map(Duration::from_micros)
    }

    pub(super) fn text(&self, column: &str) -> Result<String, StoreError> {
        self.get(column)
    }

    pub(super) fn optional_text(&self, column: &str) -> Result<Option<String>, StoreError> {
        self.get(column)
    }

    pub(super) fn flag(&self, column: &str) -> Result<bool, StoreError> {
        self.get(column)
    }

    pub(super) fn bytes(&self, column: &str) -> Result<Vec<u8>, StoreError> {
        self.get(column)
    }

    /// A text in which something else is written, such as an id.
    pub(super) fn parsed<T: FromStr>(&self, column: &str) -> Result<T, StoreError> {
        parsed(column, &self.text(column)?)
    }

    pub(super) fn optional_parsed<T: FromStr>(
        &self,
        column: &str,
    ) -> Result<Option<T>, StoreError> {
        self.optional_text(column)?.map(|text| parsed(column, &text)).transpose()
    }

    fn get<T>(&self, column: &str) -> Result<T, StoreError>
    where
        T: for<'r> Decode<'r, Sqlite> + Type<Sqlite>,
        T: for<'r> Decode<'r, Postgres> + Type<Postgres>,
        for<'c> &'c str: ColumnIndex<SqliteRow> + ColumnIndex<PgRow>,
    {
        let value = match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        };
        Ok(value?)
    }
}

fn number<T: TryFrom<i64>>(column: &str, value: i64) -> Result<T, StoreError> {
    T::try_from(value)
        .map_err(|_| StoreError::Malformed { reason: format!("{column} is the number {value}") })
}

fn parsed<T: FromStr>(column: &str, text: &str) -> Result<T, StoreError> {
    let shown: String = text.chars().take(SHOWN).collect();
    text.parse().map_err(|_| StoreError::Malformed { reason: format!("{column} is {shown:?}") })
}

/// Characters of a text that cannot be read which an error shows.
const SHOWN: usize = 60;
