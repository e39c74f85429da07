//! How long machines took to boot.

use std::time::Duration;

use crate::store::rules::boots::summary;
use crate::store::session::Session;
use crate::store::value::values;
use crate::store::{BootTimes, Size, StoreError};

/// Boots of one kind that are remembered.
const REMEMBERED: i64 = 100;

pub(in crate::store) async fn boot_times(
    session: &mut Session,
    image: &str,
    size: Size,
    acceleration: &str,
) -> Result<Option<BootTimes>, StoreError> {
    const TIMES: &str = "SELECT took FROM boots WHERE image = $1 AND cpus = $2 AND memory = $3 \
                         AND acceleration = $4 ORDER BY time DESC LIMIT $5";
    let values = values![image, size.cpus, size.memory, acceleration, REMEMBERED];
    let rows = session.rows(TIMES, values).await?;
    let times = rows.iter().map(|row| row.duration("took")).collect::<Result<_, _>>()?;
    Ok(summary(times))
}

pub(in crate::store) async fn booted(
    session: &mut Session,
    image: &str,
    size: Size,
    acceleration: &str,
    took: Duration,
) -> Result<(), StoreError> {
    const PUT: &str = "INSERT INTO boots (image, cpus, memory, acceleration, time, took) \
                       VALUES ($1, $2, $3, $4, $5, $6)";
    const FORGET: &str = "DELETE FROM boots WHERE image = $1 AND cpus = $2 AND memory = $3 \
                          AND acceleration = $4 AND time < (SELECT time FROM boots \
                          WHERE image = $1 AND cpus = $2 AND memory = $3 AND acceleration = $4 \
                          ORDER BY time DESC LIMIT 1 OFFSET $5)";
    let now = session.now().await?;
    let values = values![image, size.cpus, size.memory, acceleration, now, took];
    session.execute(PUT, values).await?;
    let values = values![image, size.cpus, size.memory, acceleration, REMEMBERED - 1];
    session.execute(FORGET, values).await.map(drop)
}
