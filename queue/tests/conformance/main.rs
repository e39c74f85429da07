//! What every queue keeps, checked on both: the embedded one in a directory of its own, and a real
//! broker, shared by the tests of this process with a prefix for each.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod crash;
mod delivery;
mod full;
mod hosts;
mod letters;
mod outage;
mod reservations;
mod rubbish;
mod samples;
mod world;

/// Makes a test for each form of each function, which takes a `World`.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod embedded {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name($crate::world::World::embedded()).await;
                }
            )+
        }
        mod rabbit {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name($crate::world::World::rabbit().await).await;
                }
            )+
        }
    };
}
pub(crate) use on_both;
