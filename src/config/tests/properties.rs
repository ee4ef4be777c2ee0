//! What holds for any value.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn a_duration_is_read_back_as_it_is_shown(millis in 1..=366 * 24 * 3_600_000_u64) {
        let time = Timeout::parse(&format!("{millis}ms")).unwrap();
        prop_assert_eq!(time.0, Duration::from_millis(millis));
        prop_assert_eq!(Timeout::parse(&time.to_string()).unwrap(), time);
    }

    #[test]
    fn a_size_is_read_back_as_it_is_shown(bytes in 0..=2_usize << 30, shift in 0..30_u32) {
        let size = Size::<0>::parse(&(bytes >> shift << shift).to_string()).unwrap();
        prop_assert_eq!(Size::<0>::parse(&size.to_string()).unwrap(), size);
    }

    #[test]
    fn a_number_alone_is_never_a_duration(number in "[0-9]{1,30}(\\.[0-9]{1,9})?") {
        prop_assert!(Interval::parse(&number).is_err());
    }

    #[test]
    fn a_price_keeps_its_digits(price in "(0|[1-9][0-9]{0,6})(\\.[0-9]{1,12})?") {
        let parsed = Price::parse(&price).unwrap();
        prop_assert_eq!(parsed.as_json().get(), price);
    }

    #[test]
    fn no_value_of_any_setting_panics(values in proptest::collection::vec(".*|[0-9]{1,40}[a-zA-Z]{0,3}", SETTINGS.len())) {
        let vars = SETTINGS.iter().zip(values).filter(|(setting, _)| setting.name != "PIN_API_SECRET_FILE");
        let _ = read(vars.map(|(setting, value)| (setting.name.into(), value.into())).collect());
    }

    #[test]
    fn no_variable_name_panics(name in "PIN_.*", value in ".*") {
        let _ = read(vec![(name.into(), value.into())]);
    }

    #[test]
    fn whatever_duration_is_accepted_is_read_back_as_it_is_shown(
        text in "([0-9]{1,7} ?(ns|us|ms|msec|s|sec|m|min|h|hr|d|days|w|M|y|years) ?){1,4}",
    ) {
        if let Ok(time) = Timeout::parse(&text) {
            prop_assert_eq!(Timeout::parse(&time.to_string()).unwrap(), time);
        }
    }

    #[test]
    fn whatever_size_is_accepted_is_read_back_as_it_is_shown(
        text in "[0-9]{1,10}(\\.[0-9]{1,3})? ?([kKmMgG]?i?[bB]?)",
    ) {
        if let Ok(size) = Size::<0>::parse(&text) {
            prop_assert_eq!(Size::<0>::parse(&size.to_string()).unwrap(), size);
        }
    }

    #[test]
    fn an_address_to_listen_on_is_read_back_as_it_is_shown(ip: IpAddr, port: u16) {
        let address = SocketAddr::from((ip, port));
        let shown = ListenAddr::parse(&address.to_string()).unwrap();
        prop_assert_eq!(shown.0, address);
        prop_assert_eq!(ListenAddr::parse(&shown.to_string()).unwrap().0, address);
    }

    #[test]
    fn a_refusal_names_the_setting_and_what_was_written(text in "[a-z]{1,8}[!?;]{1,3}") {
        for name in [
            "PIN_CONNECT_TIMEOUT", "PIN_MAX_FRAME_BYTES", "PIN_CAPACITY", "PIN_LISTEN_ADDR", "PIN_SERVER_URL",
            "PIN_OLLAMA_URL", "PIN_REGION", "PIN_ALLOW_PLAINTEXT", "PIN_PRICE_PER_THOUSAND_TOKENS",
        ] {
            let error = read(vars(&[LEAST, &[(name, &text)]].concat())).unwrap_err().to_string();
            prop_assert!(error.starts_with(&format!("{name}: \"{text}\" ")), "{}", error);
            prop_assert_eq!(error.lines().count(), 1, "{}", error);
        }
    }
}
