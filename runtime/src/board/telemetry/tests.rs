//! Fake boards, and what is read off them.

use super::*;

struct Case {
    name: &'static str,
    files: &'static [(&'static str, &'static str)],
    zone: Option<&'static str>,
    board: Option<&'static str>,
    want: Sample,
}

const ZONE_0: &str = "sys/class/thermal/thermal_zone0/";
const NOTHING: Sample = Sample { temperature_c: None, power_mw: None };

fn check(case: &Case, root: &Path) {
    for (path, text) in case.files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let telemetry = Telemetry::new(root);
    assert_eq!(telemetry.sample(), case.want, "{}", case.name);
    assert_eq!(telemetry.hottest().map(|(name, _)| name), case.zone, "{}: zone", case.name);
    assert_eq!(telemetry.board(), case.board, "{}: board", case.name);
    // The sensors go away while the program runs.
    fs::remove_dir_all(root).unwrap();
    assert_eq!(telemetry.sample(), NOTHING, "{}: after the files are gone", case.name);
}

fn check_all(family: &str, cases: &[Case]) {
    for (i, case) in cases.iter().enumerate() {
        let root = std::env::temp_dir().join(format!("lichen-telemetry-{family}-{}-{i}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        check(case, &root);
    }
}

#[test]
fn boards_are_read() {
    let cases = [
        Case { name: "no sysfs", files: &[], zone: None, board: None, want: NOTHING },
        Case {
            name: "Nano, JetPack 4",
            files: &[
                ("sys/class/thermal/thermal_zone0/type", "AO-therm\n"),
                ("sys/class/thermal/thermal_zone0/temp", "46500\n"),
                ("sys/class/thermal/thermal_zone1/type", "CPU-therm\n"),
                ("sys/class/thermal/thermal_zone1/temp", "38000\n"),
                ("sys/class/thermal/thermal_zone4/type", "PMIC-Die\n"),
                ("sys/class/thermal/thermal_zone4/temp", "100000\n"),
                ("sys/class/thermal/cooling_device0/type", "pwm-fan\n"),
                ("sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_0", "POM_5V_IN\n"),
                ("sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input", "2731\n"),
                ("sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_1", "POM_5V_GPU\n"),
                ("sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power1_input", "120\n"),
                ("sys/firmware/devicetree/base/model", "NVIDIA Jetson Nano Developer Kit\0"),
            ],
            zone: Some("AO-therm"),
            board: Some("NVIDIA Jetson Nano Developer Kit"),
            want: Sample { temperature_c: Some(46.5), power_mw: Some(2731) },
        },
        Case {
            name: "Xavier NX, JetPack 5; the input rail is not the first",
            files: &[
                ("sys/class/thermal/thermal_zone0/type", "CPU-therm"),
                ("sys/class/thermal/thermal_zone0/temp", "41000"),
                ("sys/class/thermal/thermal_zone10/type", "GPU-therm"),
                ("sys/class/thermal/thermal_zone10/temp", "52250"),
                ("sys/bus/i2c/drivers/ina3221/7-0040/hwmon/hwmon4/in1_label", "VDD_SOC\n"),
                ("sys/bus/i2c/drivers/ina3221/7-0040/hwmon/hwmon4/in1_input", "4000\n"),
                ("sys/bus/i2c/drivers/ina3221/7-0040/hwmon/hwmon4/curr1_input", "4000\n"),
                ("sys/bus/i2c/drivers/ina3221/7-0040/hwmon/hwmon4/in2_label", "VDD_IN\n"),
                ("sys/bus/i2c/drivers/ina3221/7-0040/hwmon/hwmon4/in2_input", "5040\n"),
                ("sys/bus/i2c/drivers/ina3221/7-0040/hwmon/hwmon4/curr2_input", "1209\n"),
                ("proc/device-tree/model", "NVIDIA Jetson Xavier NX\n\0"),
            ],
            zone: Some("GPU-therm"),
            board: Some("NVIDIA Jetson Xavier NX"),
            want: Sample { temperature_c: Some(52.25), power_mw: Some(6093) },
        },
        Case {
            name: "only the sum of shunts is an input",
            files: &[
                ("sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/in7_label", "VDD_IN\n"),
                ("sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/in7_input", "5000\n"),
                ("sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/curr7_input", "5000\n"),
                ("sys/bus/i2c/drivers/ina3221/1-0041/hwmon/hwmon2/in1_label", "VDD_GPU_SOC\n"),
                ("sys/bus/i2c/drivers/ina3221/bind", "\n"),
                ("sys/firmware/devicetree/base/model", "\0"),
            ],
            zone: None,
            board: None,
            want: NOTHING,
        },
    ];
    check_all("boards", &cases);
}

#[test]
fn absurd_values_are_not_there() {
    const NAME: &str = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_0";
    const POWER: &str = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input";
    let temperature = |celsius: f32| Sample { temperature_c: Some(celsius), power_mw: None };
    let both: [(&str, Sample); 12] = [
        ("", NOTHING),
        ("\n", NOTHING),
        ("hot\n", NOTHING),
        ("2147483648\n", NOTHING),
        ("-2147483648\n", NOTHING),
        ("99999999999999999999999\n", NOTHING),
        ("-256000\n", NOTHING),
        ("150001\n", Sample { temperature_c: None, power_mw: Some(150_001) }),
        ("-40000\n", temperature(-40.0)),
        ("0\0", Sample { temperature_c: Some(0.0), power_mw: Some(0) }),
        ("  7000 \n\0", Sample { temperature_c: Some(7.0), power_mw: Some(7000) }),
        ("150000", Sample { temperature_c: Some(150.0), power_mw: Some(150_000) }),
    ];
    let root = std::env::temp_dir().join(format!("lichen-telemetry-values-{}", std::process::id()));
    for folder in ["sys/class/thermal/thermal_zone0", "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join(NAME), "POM_5V_IN\n").unwrap();
    fs::write(root.join(format!("{ZONE_0}type")), "CPU-therm\n").unwrap();
    let telemetry = Telemetry::new(&root);
    assert_eq!(telemetry.rail(), Some("POM_5V_IN"));
    for (value, want) in both {
        fs::write(root.join(POWER), value).unwrap();
        fs::write(root.join(format!("{ZONE_0}temp")), value).unwrap();
        assert_eq!(telemetry.sample(), want, "{value:?}");
    }
    // Longer than a number can be, and not UTF-8.
    for bytes in [vec![b'1'; 4096], vec![b' '; VALUE_BYTES_MAX], vec![0xff, 0xfe]] {
        fs::write(root.join(POWER), &bytes).unwrap();
        fs::write(root.join(format!("{ZONE_0}temp")), &bytes).unwrap();
        assert_eq!(telemetry.sample(), NOTHING, "{} bytes", bytes.len());
    }
    fs::remove_dir_all(&root).unwrap();
}

#[test]
fn volts_times_amperes_never_overflow() {
    let root = std::env::temp_dir().join(format!("lichen-telemetry-product-{}", std::process::id()));
    let monitor = root.join("sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon0");
    fs::create_dir_all(&monitor).unwrap();
    fs::write(monitor.join("in1_label"), "VDD_IN\n").unwrap();
    let telemetry = Telemetry::new(&root);
    let cases: [(&str, &str, Option<u32>); 7] = [
        ("5000", "2000", Some(10_000)),
        ("19000", "-1", None),
        ("-1", "-1", None),
        ("999999", "999999", None),
        ("9223372036854775807", "9223372036854775807", None),
        ("2147483648", "1", None),
        ("5000", "", None),
    ];
    for (millivolts, milliamperes, want) in cases {
        fs::write(monitor.join("in1_input"), millivolts).unwrap();
        fs::write(monitor.join("curr1_input"), milliamperes).unwrap();
        assert_eq!(telemetry.sample().power_mw, want, "{millivolts} mV, {milliamperes} mA");
    }
    fs::remove_dir_all(&root).unwrap();
}

#[test]
fn resident_memory_counts_what_was_touched() {
    const MIB: u64 = 1 << 20;
    let touched = std::hint::black_box(vec![1u8; 64 << 20]);
    let resident = rss_bytes().expect("Linux says");
    drop(touched);
    let peak = crate::measure::bench::peak_rss_bytes().expect("Linux says") as u64;
    assert!(resident >= 64 * MIB, "{resident} with 64 MiB touched");
    // The kernel gathers its counts of a few hundred pages a core now and then.
    assert!(resident <= peak + 8 * MIB, "{resident} then, at most {peak} so far");
}

#[test]
fn the_page_size_is_found_in_the_auxiliary_vector() {
    let auxv = |pairs: &[(usize, usize)]| -> Vec<u8> {
        pairs.iter().flat_map(|(key, value)| [key.to_ne_bytes(), value.to_ne_bytes()].concat()).collect()
    };
    assert_eq!(page_bytes(&auxv(&[(33, 6), (6, 65536), (0, 0)])), Some(65536));
    assert_eq!(page_bytes(&auxv(&[(33, 6), (0, 0)])), None);
    assert_eq!(page_bytes(&auxv(&[(6, 4096)])[..9]), None);
    assert_eq!(page_bytes(&[]), None);
}
