//! The table of QEMU's user network.

/// The host's port that is forwarded to a port of the guest, in the answer to `info usernet`
/// (vm-facts 8):
///
/// ```text
/// Hub -1 (n0):
///   Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
///   TCP[HOST_FORWARD]  14       127.0.0.1 46875       10.0.2.15    22     0     0
/// ```
pub(crate) fn forwarded_port(table: &str, guest_port: u16) -> Option<u16> {
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [protocol, _descriptor, _source, port, _destination, to, ..] = fields[..] else {
            return None;
        };
        let forwarded = protocol == "TCP[HOST_FORWARD]" && to.parse() == Ok(guest_port);
        forwarded.then(|| port.parse().ok().filter(|port| *port != 0))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_stands_in_the_table() {
        let table = "Hub -1 (n0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  TCP[ESTABLISHED]  12       127.0.0.1 1111       10.0.2.15    22     0     0\r\n  TCP[HOST_FORWARD]  13       127.0.0.1 2222       10.0.2.15    80     0     0\r\n  TCP[HOST_FORWARD]  14       127.0.0.1 46875       10.0.2.15    22     0     0\r\n";
        assert_eq!(forwarded_port(table, 22), Some(46875));
        assert_eq!(forwarded_port(table, 80), Some(2222));
        assert_eq!(forwarded_port(table, 443), None);
        assert_eq!(forwarded_port("", 22), None);
        assert_eq!(forwarded_port("TCP[HOST_FORWARD] 1 a 99999 b 22 0 0", 22), None);
    }
}
