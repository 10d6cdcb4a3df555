//! A model that is served, and its clients: what comes back is what the model computes, whoever asks and however requests are put together.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tensorbus_transport::{AnswerError, Bus, Dtype, RingError, TensorView};
use tensorbus_worker::{
    FunctionModel, ModelClient, PlaceError, RequestError, ServeError, Serving, Signature, TensorInfo,
};

const PATIENCE: Duration = Duration::from_secs(30);

fn bus() -> Bus {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Bus::builder().session(&format!("serving{}-{number}", std::process::id())).open().unwrap()
}

fn f32s(name: &str, shape: &[i64]) -> TensorInfo {
    TensorInfo::new(name, Dtype::F32, shape)
}

fn view(values: &[f32]) -> TensorView<'_> {
    TensorView::new(values, &[values.len()], &[1]).unwrap()
}

fn ask(client: &ModelClient, x: &[f32]) -> Vec<f32> {
    client.infer(&[("x", view(x))], PATIENCE).unwrap().view("y").unwrap().to_vec()
}

#[test]
fn requests_of_many_threads_are_batched_and_each_gets_its_own_answer() {
    let bus = bus();
    let largest = Arc::new(AtomicUsize::new(0));
    let seen = largest.clone();
    let signature = Signature::new(vec![f32s("x", &[-1, 3])], vec![f32s("y", &[-1, 3])]).unwrap().batched().unwrap();
    let model = FunctionModel::new(signature, move |call| {
        seen.fetch_max(call.rows(), Ordering::Relaxed);
        let x = call.input(0).view::<f32>()?;
        let y = call.output::<f32>(0, &[x.len() / 3, 3])?;
        y.iter_mut().zip(x).for_each(|(y, x)| *y = 2.0 * x);
        // Long enough for others to come.
        std::thread::sleep(Duration::from_millis(2));
        Ok(())
    });
    let serving = Serving::builder(&bus, "double/1", Arc::new(model)).max_batch(4).start().unwrap();
    let client = ModelClient::connect(&bus, "double/1").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let client = &client;
            scope.spawn(move || {
                for number in 0..20 {
                    let x = [thread as f32, number as f32, 0.5];
                    assert_eq!(ask(client, &x), x.map(|x| 2.0 * x));
                }
            });
        }
    });
    let stats = serving.stats();
    assert_eq!((stats.requests, stats.failed), (160, 0));
    assert!(stats.batches < 160, "never two at a time");
    assert!((2..=4).contains(&largest.load(Ordering::Relaxed)), "{largest:?}");
    assert_eq!(stats.copied_bytes, 0, "between clients and model nothing is copied");
    assert!(serving.is_serving());
    assert!(serving.stop().is_empty());
    let gone = client.infer(&[("x", view(&[0.0; 3]))], PATIENCE).unwrap_err();
    assert!(matches!(gone, RequestError::Answer(AnswerError::NoWorker { .. })), "{gone}");
}

#[test]
fn a_model_that_is_not_batched_gets_its_inputs_as_they_are() {
    let bus = bus();
    let signature = Signature::new(vec![f32s("x", &[2])], vec![f32s("y", &[]), f32s("z", &[1, 2])]).unwrap();
    let model = FunctionModel::new(signature, |call| {
        let x = call.input(0).view::<f32>()?;
        assert_eq!(call.input(0).layout().shape, [2]);
        call.output::<f32>(0, &[])?[0] = x[0] + x[1];
        call.output::<f32>(1, &[1, 2])?.copy_from_slice(&[x[1], x[0]]);
        Ok(())
    });
    let _serving = Serving::builder(&bus, "pair", Arc::new(model)).start().unwrap();
    let client = ModelClient::connect(&bus, "pair").unwrap();
    let answer = client.infer(&[("x", view(&[1.0, 5.0]))], PATIENCE).unwrap();
    assert_eq!((answer.view::<f32>("y").unwrap(), answer.view::<f32>("z").unwrap()), (&[6.0][..], &[5.0, 1.0][..]));
    assert_eq!(answer.tensor("z").unwrap().layout().shape, [1, 2]);
}

#[test]
fn requests_may_differ_in_shape_and_so_may_outputs() {
    let bus = bus();
    // Running sums: as many as there are numbers.
    let signature = Signature::new(vec![f32s("x", &[-1, -1])], vec![f32s("y", &[-1, -1])]).unwrap().batched().unwrap();
    let model = FunctionModel::new(signature, |call| {
        let shape = call.input(0).layout().shape.clone();
        let x = call.input(0).view::<f32>()?;
        let y = call.output::<f32>(0, &shape)?;
        if let Some(columns) = std::num::NonZero::new(shape[1]) {
            for (y, x) in y.chunks_exact_mut(columns.get()).zip(x.chunks_exact(columns.get())) {
                let mut sum = 0.0;
                y.iter_mut().zip(x).for_each(|(y, x)| {
                    sum += x;
                    *y = sum;
                });
            }
        }
        Ok(())
    });
    let model = Arc::new(model);
    let refused = Serving::builder(&bus, "sums", model.clone()).start().unwrap_err();
    assert!(matches!(refused, ServeError::Place(PlaceError::AnySize { .. })), "{refused}");
    let refused = Serving::builder(&bus, "sums", model.clone()).max_shape("w", &[1]).start().unwrap_err();
    assert!(matches!(refused, ServeError::Place(PlaceError::NoSuchTensor { .. })), "{refused}");
    let serving = Serving::builder(&bus, "sums", model).max_shape("x", &[5]).start().unwrap();
    let client = ModelClient::connect(&bus, "sums").unwrap();
    assert_eq!(ask(&client, &[1.0, 2.0, 3.0]), [1.0, 3.0, 6.0]);
    assert_eq!(ask(&client, &[1.0; 5]), [1.0, 2.0, 3.0, 4.0, 5.0]);
    let too_long = client.infer(&[("x", view(&[1.0; 6]))], PATIENCE).unwrap_err();
    assert!(matches!(too_long, RequestError::Shape(_)), "{too_long}");
    // Eight numbers there and back, each copied once. The worker counts a moment after its client has the answer.
    let begun = Instant::now();
    while serving.stats().copied_bytes != 2 * 8 * 4 {
        assert!(begun.elapsed() < PATIENCE, "{:?}", serving.stats());
        std::thread::yield_now();
    }
}

#[test]
fn a_model_that_fails_or_panics_is_an_error_of_the_request() {
    let bus = bus();
    let signature = Signature::new(vec![f32s("x", &[-1, 1])], vec![f32s("y", &[-1, 1])]).unwrap().batched().unwrap();
    let model = FunctionModel::new(signature, |call| {
        let x = call.input(0).view::<f32>()?;
        match x[0] {
            13.0 => return Err("thirteen is not taken".into()),
            14.0 => panic!("fourteen"),
            _ => call.output::<f32>(0, &[x.len(), 1])?.copy_from_slice(x),
        }
        Ok(())
    });
    let serving = Serving::builder(&bus, "picky", Arc::new(model)).start().unwrap();
    let client = ModelClient::connect(&bus, "picky").unwrap();
    for (x, reason) in [(13.0, "thirteen is not taken"), (14.0, "fourteen")] {
        let failed = client.infer(&[("x", view(&[x]))], PATIENCE).unwrap_err();
        assert!(matches!(failed, RequestError::Answer(AnswerError::Failed { .. })), "{failed}");
        assert!(failed.to_string().contains(reason), "{failed}");
    }
    assert_eq!(ask(&client, &[15.0]), [15.0], "it goes on");
    assert_eq!(serving.stats().failed, 2);
}

#[test]
fn what_is_not_asked_rightly_is_refused() {
    let bus = bus();
    let signature = Signature::new(vec![f32s("x", &[2])], vec![f32s("y", &[2])]).unwrap();
    let model = FunctionModel::new(signature, |call| {
        let x = call.input(0).view::<f32>()?;
        call.output::<f32>(0, &[2])?.copy_from_slice(x);
        Ok(())
    });
    assert!(matches!(ModelClient::connect(&bus, "echo"), Err(RingError::NotThere { .. })));
    let _serving = Serving::builder(&bus, "echo", Arc::new(model)).start().unwrap();
    let client = ModelClient::connect(&bus, "echo").unwrap();
    let x = [1.0, 2.0];
    let wrong: [&[(&str, TensorView<'_>)]; 3] = [&[], &[("y", view(&x))], &[("x", view(&x)), ("x", view(&x))]];
    for inputs in wrong {
        assert!(matches!(client.infer(inputs, PATIENCE), Err(RequestError::Inputs { .. })));
    }
    assert!(matches!(client.infer(&[("x", view(&[1.0]))], PATIENCE), Err(RequestError::Shape(_))));
    let numbers = TensorView::new(&[1_i32, 2], &[2], &[1]).unwrap();
    assert!(matches!(client.infer(&[("x", numbers)], PATIENCE), Err(RequestError::View(_))));
    assert_eq!(client.ring().rows(), 64);
}
