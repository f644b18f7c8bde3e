use super::super::Table;
use super::super::tests::usual;
use super::*;

const INBOUND: &str = "ISTIO_INBOUND";
const IN_REDIRECT: &str = "ISTIO_IN_REDIRECT";
const OUTPUT: &str = "ISTIO_OUTPUT";

fn rules_of(capture: &Capture, chain: &str) -> Vec<String> {
    rules_in(capture, TableName::Nat, Family::V4, chain)
}

fn rules_in(capture: &Capture, table: TableName, family: Family, chain: &str) -> Vec<String> {
    let text = capture
        .table(table, family)
        .restore(table, &Table::default());
    let start = format!("-A {chain} ");
    let rules = text.lines().filter_map(|line| line.strip_prefix(&start));
    rules.map(str::to_owned).collect()
}

#[test]
fn everything_inbound_is_captured_but_excluded_ports_and_the_tunnel() {
    let want = [
        "-p tcp --dport 15008 -j RETURN",
        "-p tcp --dport 15090 -j RETURN",
        "-p tcp --dport 15021 -j RETURN",
        "-p tcp -j ISTIO_IN_REDIRECT",
    ];
    assert_eq!(rules_of(&usual(), INBOUND), want);
    assert_eq!(
        rules_of(&usual(), IN_REDIRECT),
        ["-p tcp -j REDIRECT --to-ports 15006"]
    );
    assert_eq!(
        rules_of(&usual(), "PREROUTING"),
        ["-p tcp -j ISTIO_INBOUND"]
    );
}

#[test]
fn listed_inbound_ports_are_captured_alone_and_none_means_no_jump() {
    let mut capture = usual();
    capture.inbound = Inbound::Only(vec![8080]);
    let want = [
        "-p tcp --dport 15008 -j RETURN",
        "-p tcp --dport 8080 -j ISTIO_IN_REDIRECT",
    ];
    assert_eq!(rules_of(&capture, INBOUND), want);
    capture.inbound = Inbound::Only(Vec::new());
    assert_eq!(rules_of(&capture, "PREROUTING"), Vec::<String>::new());
}

#[test]
fn outbound_exemptions_stand_before_the_redirect() {
    let mut capture = usual();
    capture.proxy_gids.clear();
    capture.outbound.excluded_ports = vec![3306];
    capture.outbound.excluded_ranges = vec!["169.254.0.0/16".parse().unwrap()];
    let want = [
        "-p tcp --dport 3306 -j RETURN",
        "-p udp --dport 3306 -j RETURN",
        "-s 127.0.0.6/32 -o lo -j RETURN",
        "! -d 127.0.0.1/32 -o lo -p tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT",
        "-o lo -m owner ! --uid-owner 1337 -j RETURN",
        "-m owner --uid-owner 1337 -j RETURN",
        "-d 127.0.0.1/32 -j RETURN",
        "-d 169.254.0.0/16 -j RETURN",
        "-j ISTIO_REDIRECT",
    ];
    assert_eq!(rules_of(&capture, OUTPUT), want);
}

#[test]
fn listed_outbound_ranges_and_ports_are_captured_alone() {
    let mut capture = usual();
    capture.outbound.ranges = Ranges::Only(vec!["10.96.0.0/12".parse().unwrap()]);
    capture.outbound.included_ports = vec![9000];
    let rules = rules_of(&capture, OUTPUT);
    let want = [
        "-p tcp --dport 9000 -j ISTIO_REDIRECT",
        "-d 10.96.0.0/12 -j ISTIO_REDIRECT",
    ];
    assert_eq!(rules[rules.len() - 2..], want);
}

#[test]
fn an_excluded_interface_is_left_alone_in_both_directions() {
    let mut capture = usual();
    capture.excluded_interfaces = vec![Interface::parse("eth1").unwrap()];
    assert_eq!(rules_of(&capture, INBOUND)[0], "-i eth1 -j RETURN");
    assert_eq!(rules_of(&capture, OUTPUT)[0], "-o eth1 -j RETURN");
    for bad in ["", "-j", "a b", "sixteen-letters-x", "a\nb"] {
        assert_eq!(Interface::parse(bad), None, "{bad:?}");
    }
}

#[test]
fn of_ipv6_the_same_is_captured_but_for_its_own_addresses() {
    let mut capture = usual();
    let mixed = ["10.96.0.0/12", "fd00:10:96::/112"].map(|net| net.parse().unwrap());
    capture.outbound.ranges = Ranges::Only(mixed.to_vec());
    let rules = rules_in(&capture, TableName::Nat, Family::V6, OUTPUT);
    assert_eq!(rules[0], "-s ::6/128 -o lo -j RETURN");
    let last = [
        "-d ::1/128 -j RETURN",
        "-d fd00:10:96::/112 -j ISTIO_REDIRECT",
    ];
    assert_eq!(rules[rules.len() - 2..], last);
    assert!(!rules.iter().any(|rule| rule.contains("127.0.0")));
}

#[test]
fn by_tproxy_what_comes_in_is_marked_and_what_goes_out_is_redirected() {
    let mut capture = usual();
    capture.mode = Mode::Tproxy(Transparent::default());
    let mangle = |chain| rules_in(&capture, TableName::Mangle, Family::V4, chain);
    let want = [
        "-p tcp -m mark --mark 0x539 -j RETURN",
        "-s 127.0.0.6/32 -i lo -p tcp -j RETURN",
        "-i lo -p tcp -m mark ! --mark 0x53a -j RETURN",
        "-p tcp --dport 15008 -j RETURN",
        "-p tcp --dport 15090 -j RETURN",
        "-p tcp --dport 15021 -j RETURN",
        "-p tcp -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT",
        "-p tcp -j ISTIO_TPROXY",
    ];
    assert_eq!(mangle(INBOUND), want);
    let tproxy = "! -d 127.0.0.1/32 -p tcp -j TPROXY --on-port 15006 --on-ip 0.0.0.0 --tproxy-mark 0x539/0xffffffff";
    assert_eq!(mangle("ISTIO_TPROXY"), [tproxy]);
    // Nothing of the nat table takes what comes in a second time.
    assert_eq!(rules_of(&capture, "PREROUTING"), Vec::<String>::new());
    let nat = rules_of(&capture, OUTPUT);
    assert_eq!(nat, rules_of(&usual(), OUTPUT));
}

#[test]
fn by_tproxy_listed_ports_alone_are_taken() {
    let mut capture = usual();
    capture.mode = Mode::Tproxy(Transparent::default());
    capture.inbound = Inbound::Only(vec![8080]);
    let rules = rules_in(&capture, TableName::Mangle, Family::V4, INBOUND);
    let last = [
        "-p tcp --dport 8080 -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT",
        "-p tcp --dport 8080 -j ISTIO_TPROXY",
    ];
    assert_eq!(rules[rules.len() - 2..], last);
}
