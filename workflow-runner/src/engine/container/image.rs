//! Images: from a registry, with or without credentials, and from the files of an action.

use std::time::Duration;

use tokio::time::sleep;

use crate::engine::job::Job;
use crate::engine::supervise::Limits;

use super::drive::{CONFIG, LONG, Order, SHORT, Trouble, Voice};
use super::spec::Credentials;
use super::tool::{Engine, Tool, is_local, is_name, registry};

/// How long to wait before an image is asked for again (github-runner-protocol 8.7: three tries).
const PULL_PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

impl Job<'_> {
    /// Fetches an image unless this job has it; gives the name by which the engine has it.
    pub(in crate::engine) async fn fetch_image(
        &mut self,
        tool: &Tool,
        image: &str,
        limits: &Limits,
    ) -> Result<String, Trouble> {
        if !is_name(image) {
            return Err(format!("{image:?} is no name of an image").into());
        }
        let name = tool.engine.image(image);
        if self.containers.image(&name).is_none() {
            self.pull(tool, &name, None, limits).await?;
        }
        Ok(name)
    }

    /// The same with credentials, which are forgotten at once.
    pub(super) async fn fetch_image_as(
        &mut self,
        tool: &Tool,
        image: &str,
        credentials: Option<&Credentials>,
        limits: &Limits,
    ) -> Result<String, Trouble> {
        let Some(credentials) = credentials else {
            return self.fetch_image(tool, image, limits).await;
        };
        let name = tool.engine.image(image);
        let number = self.containers.next_action();
        let directory = format!("{}/_registry_{number}", self.directories.temp);
        self.system.create_directory(&directory, self.facts.owner).await?;
        let fetched = async {
            self.log_in(tool, image, credentials, &directory, limits).await?;
            self.pull(tool, &name, Some(&directory), limits).await
        };
        let fetched = fetched.await;
        self.system.remove(&directory).await?;
        fetched.map(|()| name)
    }

    /// Logs in to the registry of an image. The password comes on standard input.
    async fn log_in(
        &mut self,
        tool: &Tool,
        image: &str,
        credentials: &Credentials,
        directory: &str,
        limits: &Limits,
    ) -> Result<(), Trouble> {
        let registry = registry(image);
        let password = credentials.password.expose();
        self.events.mask(self.system.now(), password).await;
        let mut arguments = with_login(tool.engine, "login", Some(directory));
        arguments.extend(
            ["--username", &credentials.username, "--password-stdin", registry].map(str::to_owned),
        );
        let program = tool.engine.program();
        let text = format!("##[command]{program} login {registry}");
        self.events.say(self.system.now(), &text).await;
        let command = tool.with_input(arguments, password);
        let name = format!("{program} login");
        let done = self.attend_order(&name, command, SHORT, Voice::Full, limits).await?;
        if done.is_well() {
            return Ok(());
        }
        Err(format!(
            "the registry {registry} did not take the credentials of {image}; see above, and look \
             at `credentials` of the container"
        )
        .into())
    }

    /// Fetches an image in three tries; one that is on the machine serves where its registry does not
    /// answer.
    async fn pull(
        &mut self,
        tool: &Tool,
        name: &str,
        login: Option<&str>,
        limits: &Limits,
    ) -> Result<(), Trouble> {
        let mut pauses = PULL_PAUSES.into_iter();
        let mut pulled = is_local(name);
        let is_nowhere_else = pulled;
        while !pulled {
            let mut arguments = with_login(tool.engine, "pull", login);
            arguments.push(name.to_owned());
            let order =
                Order { arguments, environment: Vec::new(), limit: LONG, voice: Voice::Full };
            pulled = self.try_order(tool, order, limits).await?.is_well();
            if pulled {
                break;
            }
            let Some(pause) = pauses.next() else { break };
            let text = format!("{name} was not fetched; again in {} s", pause.as_secs());
            self.events.warning(self.system.now(), &text).await;
            tokio::select! {
                () = sleep(pause) => {}
                stop = limits.reached() => return Err(Trouble::Stopped(stop)),
            }
        }
        if !pulled || is_nowhere_else {
            let order = Order::silent(["image", "inspect", "--format", "{{.Id}}", name]);
            if !self.try_order(tool, order, limits).await?.is_well() {
                return Err(match is_nowhere_else {
                    true => format!(
                        "the image {name} is not on this machine; build it in the machine's image, \
                         or name the registry that has it"
                    ),
                    false => format!("the image {name} cannot be fetched; see above"),
                }
                .into());
            }
            if !pulled {
                let text = format!("the {name} that is on this machine is taken in its place");
                self.events.warning(self.system.now(), &text).await;
            }
        }
        self.containers.set_image(name, name);
        Ok(())
    }

    /// Builds the image of an action from its files, once in a job.
    pub(in crate::engine) async fn build_image(
        &mut self,
        tool: &Tool,
        file: &str,
        limits: &Limits,
    ) -> Result<String, Trouble> {
        if let Some(image) = self.containers.image(file) {
            return Ok(image);
        }
        let (context, _) = file.rsplit_once('/').unwrap_or((".", file));
        let number = self.containers.next_action();
        let image = format!("localhost/solstice_{}:{number}", self.document.job.short());
        let words = ["build", "--tag", &image, "--file", file, context];
        let arguments = words.map(str::to_owned).into();
        let order = Order { arguments, environment: Vec::new(), limit: LONG, voice: Voice::Full };
        self.order(tool, order, limits).await?;
        self.containers.set_image(file, &image);
        Ok(image)
    }
}

/// The beginning of a command that reads or writes what a login left in a directory.
fn with_login(engine: Engine, command: &str, directory: Option<&str>) -> Vec<String> {
    match (engine, directory) {
        (_, None) => vec![command.to_owned()],
        (Engine::Docker, Some(directory)) => {
            vec![CONFIG.to_owned(), directory.to_owned(), command.to_owned()]
        }
        (Engine::Podman, Some(directory)) => {
            let file = format!("{directory}/auth.json");
            vec![command.to_owned(), "--authfile".to_owned(), file]
        }
    }
}
